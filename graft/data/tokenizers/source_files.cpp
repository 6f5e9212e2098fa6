#include "graft/data/tokenizers/source_files.h"

#include <algorithm>
#include <fstream>
#include <sstream>

#include "graft/core/error.h"

namespace graft::data {
namespace {

namespace fs = std::filesystem;

const std::vector<std::string> kVocabularyFiles = {"tokenizer.json",  "vocab.txt",          "vocab.json",
                                                   "merges.txt",      "added_tokens.json",  "spm.model",
                                                   "tokenizer.model", "chat_template.jinja"};

const TokenizerFamily kBert = {"bert",
                               "BertTokenizer",
                               {{"unk_token", "[UNK]"},
                                {"sep_token", "[SEP]"},
                                {"pad_token", "[PAD]"},
                                {"cls_token", "[CLS]"},
                                {"mask_token", "[MASK]"}}};
const TokenizerFamily kRoberta = {"roberta",
                                  "RobertaTokenizer",
                                  {{"bos_token", "<s>"},
                                   {"eos_token", "</s>"},
                                   {"unk_token", "<unk>"},
                                   {"sep_token", "</s>"},
                                   {"pad_token", "<pad>"},
                                   {"cls_token", "<s>"},
                                   {"mask_token", "<mask>"}},
                                  true};
const TokenizerFamily kDeberta = {"deberta",
                                  "DebertaTokenizer",
                                  {{"bos_token", "[CLS]"},
                                   {"eos_token", "[SEP]"},
                                   {"unk_token", "[UNK]"},
                                   {"sep_token", "[SEP]"},
                                   {"pad_token", "[PAD]"},
                                   {"cls_token", "[CLS]"},
                                   {"mask_token", "[MASK]"}},
                                  true};
const TokenizerFamily kGpt2 = {
    "gpt2",
    "GPT2Tokenizer",
    {{"bos_token", "<|endoftext|>"}, {"eos_token", "<|endoftext|>"}, {"unk_token", "<|endoftext|>"}}};

/// DeBERTa v2, v3 and mDeBERTa: a SentencePiece model with the tokens below in it, but for [MASK].
const TokenizerFamily kDebertaV2 = {"deberta-v2", "DebertaV2Tokenizer", kDeberta.roles};
const TokenizerFamily kLlama = {
    "llama", "LlamaTokenizer", {{"bos_token", "<s>"}, {"eos_token", "</s>"}, {"unk_token", "<unk>"}}};

std::string read_text(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  GRAFT_CHECK(model, in && !in.bad(), "{}: cannot be read; check the permissions of the file", path.string());
  return text.str();
}

/// The class without the suffix that names its implementation.
std::string plain_class(std::string name) {
  if (name.ends_with("Fast")) name.resize(name.size() - 4);
  return name;
}

TokenizerFamily family_of(const SourceFiles& s) {
  const auto name = plain_class(s.text_setting("tokenizer_class", ""));
  const auto is_one_of = [](const std::string& word, std::initializer_list<const char*> words) {
    return std::find(words.begin(), words.end(), word) != words.end();
  };
  for (const auto& family : {kBert, kRoberta, kDeberta, kGpt2, kDebertaV2, kLlama})
    if (name == family.tokenizer_class) return family;
  if (is_one_of(name, {"DistilBertTokenizer", "ElectraTokenizer", "MobileBertTokenizer"})) return kBert;
  if (!name.empty() && name != "PreTrainedTokenizer" && !s.config.contains("auto_map")) return {};
  if (name.empty()) {
    if (s.model_type == "roberta") return kRoberta;
    if (s.model_type == "deberta") return kDeberta;
    if (s.model_type == "deberta-v2" || (s.model_type.empty() && s.has("spm.model"))) return kDebertaV2;
    if (s.model_type == "llama" || (s.model_type.empty() && s.has("tokenizer.model"))) return kLlama;
    if (is_one_of(s.model_type, {"gpt2", "gpt_bigcode", "starcoder2"})) return kGpt2;
    if (is_one_of(s.model_type, {"bert", "distilbert", "electra", "mobilebert"})) return kBert;
  }
  return s.has("vocab.txt") ? kBert : TokenizerFamily{};
}

const Json* role_value(const SourceFiles& s, const std::string& role) {
  // special_tokens_map.json counts only where tokenizer_config.json does not list the added tokens itself.
  if (!s.config.contains("added_tokens_decoder") && s.special_map.contains(role) && !s.special_map[role].is_null())
    return &s.special_map[role];
  if (s.config.contains(role) && !s.config[role].is_null()) return &s.config[role];
  if (s.special_map.contains(role) && !s.special_map[role].is_null()) return &s.special_map[role];
  return nullptr;
}

Json parse_settings(const fs::path& path, const std::string& text) {
  try {
    auto json = Json::parse(text);
    GRAFT_CHECK(model, json.is_object(), "{}: expected a JSON object, found {}", path.string(), json.type_name());
    return json;
  } catch (const Json::parse_error& e) {
    fail(Kind::model, "{}: not JSON at byte {}; the file is broken or cut off, fetch it again", path.string(), e.byte);
  }
}

}  // namespace

std::string SourceFiles::text_setting(const std::string& name, const std::string& otherwise) const {
  return config.contains(name) && !config[name].is_null() ? config[name].get<std::string>() : otherwise;
}

bool SourceFiles::flag(const std::string& name, bool otherwise) const {
  return config.contains(name) && !config[name].is_null() ? config[name].get<bool>() : otherwise;
}

std::string SourceFiles::token(const std::string& role) const {
  if (const auto* value = role_value(*this, role)) {
    if (value->is_string()) return *value;
    if (value->is_object() && value->contains("content")) return value->at("content");
  }
  for (const auto& [name, token] : family.roles)
    if (name == role) return token;
  return "";
}

Json SourceFiles::added_token(const std::string& role) const {
  Json token = {{"content", this->token(role)},
                {"single_word", false},
                {"lstrip", role == "mask_token" && family.mask_eats_blank},
                {"rstrip", false},
                {"normalized", false},
                {"special", true}};
  const auto take_flags = [&](const Json& from) {
    for (const auto* flag : {"single_word", "lstrip", "rstrip", "normalized"})
      if (from.contains(flag) && from[flag].is_boolean()) token[flag] = from[flag];
  };
  const auto* value = role_value(*this, role);
  if (value && value->is_object()) take_flags(*value);
  if (config.contains("added_tokens_decoder"))
    for (const auto& listed_token : config["added_tokens_decoder"])
      if (listed_token.value("content", "") == token["content"]) take_flags(listed_token);
  return token;
}

SourceFiles read_source_files(const fs::path& folder) {
  GRAFT_CHECK(model, fs::is_directory(folder), "{}: expected a folder with the files of a tokenizer, found {}",
              folder.string(), fs::exists(folder) ? "a file" : "nothing there");
  SourceFiles source{.folder = folder};
  for (const auto& name : kVocabularyFiles)
    if (fs::exists(folder / name)) source.files[name] = read_text(folder / name);
  const auto settings = [&](const std::string& name) {
    const auto path = folder / name;
    return fs::exists(path) ? parse_settings(path, read_text(path)) : Json::object();
  };
  source.config = settings("tokenizer_config.json");
  source.special_map = settings("special_tokens_map.json");
  const auto model_config = settings("config.json");
  if (model_config.contains("model_type") && model_config["model_type"].is_string())
    source.model_type = model_config["model_type"];
  source.family = family_of(source);
  return source;
}

nlohmann::json parse_vocabulary(const SourceFiles& source, const std::string& name) {
  const auto path = (source.folder / name).string();
  try {
    auto json = nlohmann::json::parse(source.files.at(name));
    GRAFT_CHECK(model, json.is_object(), "{}: expected a JSON object, found {}", path, json.type_name());
    return json;
  } catch (const nlohmann::json::parse_error& e) {
    fail(Kind::model, "{}: not JSON at byte {}; the file is broken or cut off, fetch it again", path, e.byte);
  }
}

}  // namespace graft::data
