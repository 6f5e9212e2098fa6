// Loading and encoding; the work is done by the crate behind rust/tokenizers_c.
#include "graft/data/tokenizers/tokenizer.h"

#include <cmath>

#include "graft/core/error.h"
#include "graft/core/hash.h"
#include "graft/data/tokenizers/build.h"
#include "graft/data/tokenizers/state.h"

namespace graft::data {
namespace {

namespace fs = std::filesystem;

struct CText {
  char* text = nullptr;
  CText(char* text) : text(text) {}
  ~CText() { tokenizers_c_free_text(text); }
  CText(const CText&) = delete;
  CText& operator=(const CText&) = delete;
};

TokenizersCText view(std::string_view text) { return {text.data(), text.size()}; }

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
       "{}: no tokenizer found; expected tokenizer.json, or vocab.txt, or vocab.json with merges.txt; the folder has "
       "{}; "
       "copy the tokenizer files of the source model there",
       source.folder.string(), found.empty() ? "no files" : listed(found));
}

TokenizersCOptions c_options(const Tokenizer::Options& options, const SourceFiles& source) {
  GRAFT_CHECK(usage, options.max_length.value_or(0) >= 0, "max_length: expected 0 or more, found {}",
              *options.max_length);
  return {.max_length = options.max_length.value_or(-1),
          .strategy = static_cast<uint8_t>(options.truncation),
          .truncate_left = source.text_setting("truncation_side", "right") == "left",
          .add_special_tokens = options.add_special_tokens,
          .details = options.details};
}

Encoding row_of(const TokenizersCEncodings& all, size_t row) {
  const auto begin = all.starts[row], end = all.starts[row + 1];
  Encoding encoding{.ids = {all.ids + begin, all.ids + end}, .type_ids = {all.type_ids + begin, all.type_ids + end}};
  if (!all.offsets) return encoding;
  encoding.special.assign(all.special + begin, all.special + end);
  encoding.words.assign(all.words + begin, all.words + end);
  for (auto token = begin; token < end; ++token) {
    encoding.offsets.emplace_back(all.offsets[2 * token], all.offsets[2 * token + 1]);
    if (all.special[token]) encoding.words[token - begin] = -1;
  }
  return encoding;
}

std::vector<Encoding> encode_rows(const Tokenizer::Options& options, const SourceFiles& source,
                                  const TokenizersC* handle, const std::vector<std::string_view>& texts,
                                  const std::vector<std::string_view>& pairs) {
  GRAFT_ASSERT(pairs.empty() || pairs.size() == texts.size(), "{} texts, {} pairs", texts.size(), pairs.size());
  const auto settings = c_options(options, source);
  const auto added =
      static_cast<int64_t>(options.add_special_tokens ? tokenizers_c_added_tokens(handle, !pairs.empty()) : 0);
  GRAFT_CHECK(usage, !options.max_length || *options.max_length >= added,
              "max_length: {} leaves no room, this tokenizer adds {} special tokens; raise it above {}",
              *options.max_length, added, added);
  std::vector<TokenizersCText> first, second;
  for (const auto& text : texts) first.push_back(view(text));
  for (const auto& text : pairs) second.push_back(view(text));
  TokenizersCEncodings all{};
  const CText problem = tokenizers_c_encode(handle, first.data(), second.empty() ? nullptr : second.data(),
                                            first.size(), &settings, &all);
  GRAFT_CHECK(data, !problem.text, "{}: the tokenizer refused a text: {}", source.folder.string(), problem.text);
  const std::unique_ptr<TokenizersCEncodings, decltype(&tokenizers_c_free_encodings)> owner(
      &all, tokenizers_c_free_encodings);
  std::vector<Encoding> encodings;
  encodings.reserve(texts.size());
  for (size_t row = 0; row < texts.size(); ++row) encodings.push_back(row_of(all, row));
  return encodings;
}

}  // namespace

Tokenizer Tokenizer::load(const fs::path& folder) {
  auto state = std::make_shared<State>();
  try {
    state->source = read_source_files(folder);
    state->document = document_of(state->source);
    state->outline = outline_of(state->document, folder / "tokenizer.json");
  } catch (const nlohmann::json::exception& e) {
    fail(Kind::model,
         "{}: the tokenizer files have a value of a kind that was not expected: {}; correct it, or fetch the files "
         "again",
         folder.string(), e.what());
  }
  TokenizersC* handle = nullptr;
  const CText problem = tokenizers_c_from_json(view(state->document), &handle);
  GRAFT_CHECK(model, !problem.text,
              "{}: not a tokenizer that can be read: {}; fetch the files again, or check that they belong together",
              folder.string(), problem.text);
  state->handle.reset(handle);
  Tokenizer tokenizer;
  tokenizer.state_ = std::move(state);
  return tokenizer;
}

Encoding Tokenizer::encode(std::string_view text, const Options& options) const {
  return std::move(encode_rows(options, state_->source, state_->handle.get(), {text}, {}).front());
}

Encoding Tokenizer::encode(std::string_view text, std::string_view pair, const Options& options) const {
  return std::move(encode_rows(options, state_->source, state_->handle.get(), {text}, {pair}).front());
}

std::vector<Encoding> Tokenizer::encode_batch(const std::vector<std::string_view>& texts,
                                              const std::vector<std::string_view>& pairs,
                                              const Options& options) const {
  return encode_rows(options, state_->source, state_->handle.get(), texts, pairs);
}

int64_t Tokenizer::vocab_size() const { return static_cast<int64_t>(tokenizers_c_vocab_size(state_->handle.get())); }

std::optional<int32_t> Tokenizer::id_of(const std::string& token) const {
  const auto id = tokenizers_c_token_to_id(state_->handle.get(), view(token));
  return id < 0 ? std::nullopt : std::optional<int32_t>(static_cast<int32_t>(id));
}

std::string Tokenizer::token_of(int32_t id) const {
  const CText token = id < 0 ? nullptr : tokenizers_c_id_to_token(state_->handle.get(), static_cast<uint32_t>(id));
  GRAFT_CHECK(model, token.text, "{}: the tokenizer has no token with id {}; its ids end at {}",
              state_->source.folder.string(), id, vocab_size() - 1);
  return token.text;
}

std::string Tokenizer::decode(const std::vector<int32_t>& ids, bool skip_special_tokens) const {
  char* decoded = nullptr;
  const std::vector<uint32_t> unsigned_ids(ids.begin(), ids.end());
  const CText problem = tokenizers_c_decode(state_->handle.get(), unsigned_ids.data(), unsigned_ids.size(),
                                            skip_special_tokens, &decoded);
  const CText text = decoded;
  GRAFT_CHECK(model, !problem.text, "{}: the ids cannot be decoded: {}", state_->source.folder.string(), problem.text);
  return text.text;
}

std::optional<int32_t> Tokenizer::special_id(const std::string& role) const {
  const auto token = state_->source.token(role);
  return token.empty() ? std::nullopt : id_of(token);
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
