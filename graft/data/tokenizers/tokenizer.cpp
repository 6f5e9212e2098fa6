// Loading and encoding: which files count, and checks; ids are made by the engines (crate.cpp, sentencepiece.cpp).
#include "graft/data/tokenizers/tokenizer.h"

#include <cmath>

#include "graft/core/error.h"
#include "graft/core/hash.h"
#include "graft/data/tokenizers/build.h"
#include "graft/data/tokenizers/state.h"

namespace graft::data {
namespace {

namespace fs = std::filesystem;

/// All of a tokenizer.json but its vocabulary, which is large.
nlohmann::json outline_of(const std::string& document, const fs::path& path) {
  const auto but_the_model = [](int depth, nlohmann::json::parse_event_t event, nlohmann::json& parsed) {
    return !(depth == 1 && event == nlohmann::json::parse_event_t::key && parsed == "model");
  };
  try {
    auto outline = nlohmann::json::parse(document, but_the_model);
    GRAFT_CHECK(model, outline.is_object(), "{}: expected a JSON object, found {}", path.string(), outline.type_name());
    return outline;
  } catch (const nlohmann::json::parse_error& e) {
    fail(Kind::model, "{}: not JSON at byte {}; the file is broken or cut off, fetch it again", path.string(), e.byte);
  }
}

/// Settings in which the published document and transformers' classes differ: no truncation, no padding, and for BERT the
/// choices that tokenizer_config.json states.
nlohmann::json changes_to(const nlohmann::json& outline, const SourceFiles& source) {
  auto changes = nlohmann::json::object();
  for (const auto* section : {"truncation", "padding"})
    if (outline.contains(section) && !outline[section].is_null()) changes[section] = nullptr;
  const auto normalizer = outline.find("normalizer");
  if (source.family.name != "bert" || normalizer == outline.end() || !normalizer->is_object() ||
      normalizer->value("type", "") != "BertNormalizer")
    return changes;
  auto stated = *normalizer;
  const std::pair<const char*, const char*> settings[] = {{"do_lower_case", "lowercase"},
                                                          {"strip_accents", "strip_accents"},
                                                          {"tokenize_chinese_chars", "handle_chinese_chars"}};
  for (const auto& [setting, field] : settings)
    if (source.config.contains(setting) &&
        (field == std::string_view("strip_accents") || !source.config[setting].is_null()))
      stated[field] = source.config[setting];
  if (stated != *normalizer) changes["normalizer"] = stated;
  return changes;
}

std::string document_of(const SourceFiles& source) {
  if (source.has("tokenizer.json")) {
    const auto& document = source.files.at("tokenizer.json");
    const auto changes = changes_to(outline_of(document, source.folder / "tokenizer.json"), source);
    if (changes.empty()) return document;
    auto changed = parse_vocabulary(source, "tokenizer.json");
    changed.update(changes);
    return changed.dump();
  }
  if (source.has("vocab.txt")) return build_wordpiece(source).dump();
  if (source.has("vocab.json") && source.has("merges.txt")) return build_byte_bpe(source).dump();
  std::vector<std::string> found;
  for (const auto& entry : fs::directory_iterator(source.folder)) found.push_back(entry.path().filename().string());
  std::sort(found.begin(), found.end());
  fail(Kind::model,
       "{}: no tokenizer found; expected tokenizer.json, or vocab.txt, or vocab.json with merges.txt, or spm.model, or "
       "tokenizer.model; the folder has {}; "
       "copy the tokenizer files of the source model there",
       source.folder.string(), found.empty() ? "no files" : listed(found));
}

/// Every way in ends here: checks, then the engine.
std::vector<Encoding> encode_rows(const Tokenizer::Options& options, const SourceFiles& source,
                                  const TokenizerEngine& engine, const std::vector<std::string_view>& texts,
                                  const std::vector<std::string_view>& pairs) {
  GRAFT_ASSERT(pairs.empty() || pairs.size() == texts.size(), "{} texts, {} pairs", texts.size(), pairs.size());
  GRAFT_CHECK(usage, options.max_length.value_or(0) >= 0, "max_length: expected 0 or more, found {}",
              *options.max_length);
  const auto added = options.add_special_tokens ? engine.added_tokens(!pairs.empty()) : 0;
  GRAFT_CHECK(usage, !options.max_length || *options.max_length >= added,
              "max_length: {} leaves no room, this tokenizer adds {} special tokens; raise it above {}",
              *options.max_length, added, added);
  auto result = engine.encode(texts, pairs, options, source.text_setting("truncation_side", "right") == "left");
  GRAFT_CHECK(data, result.problem.empty(), "{}: the tokenizer refused a text: {}", source.folder.string(),
              result.problem);
  return std::move(result.encodings);
}

}  // namespace

Tokenizer Tokenizer::load(const fs::path& folder) {
  auto state = std::make_shared<State>();
  try {
    state->source = read_source_files(folder);
    if (const auto name = sentencepiece_file(state->source); !name.empty()) {
      auto parts = make_sentencepiece_engine(state->source);
      state->document = state->source.files.at(name) + parts.added_tokens.dump();
      state->outline["added_tokens"] = std::move(parts.added_tokens);
      state->engine = std::move(parts.engine);
    } else {
      state->document = document_of(state->source);
      state->outline = outline_of(state->document, folder / "tokenizer.json");
      state->engine = make_crate_engine(state->document, state->source);
    }
  } catch (const nlohmann::json::exception& e) {
    fail(Kind::model,
         "{}: the tokenizer files have a value of a kind that was not expected: {}; correct it, or fetch the files "
         "again",
         folder.string(), e.what());
  }
  Tokenizer tokenizer;
  tokenizer.state_ = std::move(state);
  return tokenizer;
}

Encoding Tokenizer::encode(std::string_view text, const Options& options) const {
  return std::move(encode_rows(options, state_->source, *state_->engine, {text}, {}).front());
}

Encoding Tokenizer::encode(std::string_view text, std::string_view pair, const Options& options) const {
  return std::move(encode_rows(options, state_->source, *state_->engine, {text}, {pair}).front());
}

std::vector<Encoding> Tokenizer::encode_batch(const std::vector<std::string_view>& texts,
                                              const std::vector<std::string_view>& pairs,
                                              const Options& options) const {
  return encode_rows(options, state_->source, *state_->engine, texts, pairs);
}

int64_t Tokenizer::vocab_size() const { return state_->engine->vocab_size(); }

std::optional<int32_t> Tokenizer::id_of(const std::string& token) const { return state_->engine->id_of(token); }

std::string Tokenizer::token_of(int32_t id) const {
  const auto token = id < 0 ? std::nullopt : state_->engine->token_of(id);
  GRAFT_CHECK(model, token.has_value(), "{}: the tokenizer has no token with id {}; its ids end at {}",
              state_->source.folder.string(), id, vocab_size() - 1);
  return *token;
}

std::string Tokenizer::decode(const std::vector<int32_t>& ids, bool skip_special_tokens) const {
  return state_->engine->decode(state_->source.folder.string(), ids, skip_special_tokens);
}

std::optional<int32_t> Tokenizer::special_id(const std::string& role) const {
  const auto token = state_->source.token(role);
  return token.empty() ? std::nullopt : id_of(token);
}

Json Tokenizer::special_tokens() const {
  auto tokens = Json::object();
  for (const auto& role : kTokenRoles)
    if (const auto token = state_->source.token(role); !token.empty() && id_of(token)) tokens[role] = token;
  return tokens;
}

std::string Tokenizer::chat_template() const {
  const auto& source = state_->source;
  if (source.has("chat_template.jinja")) return source.files.at("chat_template.jinja");
  const auto stated = source.config.find("chat_template");
  if (stated == source.config.end() || stated->is_null()) return "";
  if (stated->is_string()) return *stated;
  for (const auto& entry : *stated)
    if (entry.value("name", "") == "default") return entry.value("template", "");
  return "";
}

std::optional<int64_t> Tokenizer::model_max_length() const {
  const auto stated = state_->source.config.find("model_max_length");
  if (stated == state_->source.config.end() || !stated->is_number() || stated->get<double>() >= 1e6)
    return std::nullopt;
  return stated->get<int64_t>();
}

std::string Tokenizer::fingerprint() const {
  return sha256(state_->document + state_->source.text_setting("truncation_side", "right"));
}

}  // namespace graft::data
