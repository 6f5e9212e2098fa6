// The engine for tokenizer.json documents: the Hugging Face `tokenizers` crate behind rust/tokenizers_c.
#include "graft/core/error.h"
#include "graft/data/tokenizers/state.h"
#include "tokenizers_c.h"

namespace graft::data {
namespace {

struct CText {
  char* text = nullptr;
  CText(char* text) : text(text) {}
  ~CText() { tokenizers_c_free_text(text); }
  CText(const CText&) = delete;
  CText& operator=(const CText&) = delete;
};

TokenizersCText view(std::string_view text) { return {text.data(), text.size()}; }

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

class CrateEngine final : public TokenizerEngine {
 public:
  explicit CrateEngine(TokenizersC* handle) : handle_(handle) {}

  int64_t added_tokens(bool pair) const override {
    return static_cast<int64_t>(tokenizers_c_added_tokens(handle_.get(), pair));
  }

  Result encode(const std::vector<std::string_view>& texts, const std::vector<std::string_view>& pairs,
                const Tokenizer::Options& options, bool truncate_left) const override {
    const TokenizersCOptions settings{.max_length = options.max_length.value_or(-1),
                                      .strategy = static_cast<uint8_t>(options.truncation),
                                      .truncate_left = truncate_left,
                                      .add_special_tokens = options.add_special_tokens,
                                      .details = options.details};
    std::vector<TokenizersCText> first, second;
    for (const auto& text : texts) first.push_back(view(text));
    for (const auto& text : pairs) second.push_back(view(text));
    TokenizersCEncodings all{};
    const CText problem = tokenizers_c_encode(handle_.get(), first.data(), second.empty() ? nullptr : second.data(),
                                              first.size(), &settings, &all);
    if (problem.text) return {.problem = problem.text};
    const std::unique_ptr<TokenizersCEncodings, decltype(&tokenizers_c_free_encodings)> owner(
        &all, tokenizers_c_free_encodings);
    Result result;
    result.encodings.reserve(texts.size());
    for (size_t row = 0; row < texts.size(); ++row) result.encodings.push_back(row_of(all, row));
    return result;
  }

  int64_t vocab_size() const override { return static_cast<int64_t>(tokenizers_c_vocab_size(handle_.get())); }

  std::optional<int32_t> id_of(const std::string& token) const override {
    const auto id = tokenizers_c_token_to_id(handle_.get(), view(token));
    return id < 0 ? std::nullopt : std::optional<int32_t>(static_cast<int32_t>(id));
  }

  std::optional<std::string> token_of(int32_t id) const override {
    const CText token = tokenizers_c_id_to_token(handle_.get(), static_cast<uint32_t>(id));
    return token.text ? std::optional<std::string>(token.text) : std::nullopt;
  }

  std::string decode(const std::string& where, const std::vector<int32_t>& ids,
                     bool skip_special_tokens) const override {
    char* decoded = nullptr;
    const std::vector<uint32_t> unsigned_ids(ids.begin(), ids.end());
    const CText problem =
        tokenizers_c_decode(handle_.get(), unsigned_ids.data(), unsigned_ids.size(), skip_special_tokens, &decoded);
    const CText text = decoded;
    GRAFT_CHECK(model, !problem.text, "{}: the ids cannot be decoded: {}", where, problem.text);
    return text.text;
  }

 private:
  struct Free {
    void operator()(TokenizersC* tokenizer) const { tokenizers_c_free(tokenizer); }
  };
  std::unique_ptr<TokenizersC, Free> handle_;
};

}  // namespace

std::unique_ptr<const TokenizerEngine> make_crate_engine(const std::string& document, const SourceFiles& source) {
  TokenizersC* handle = nullptr;
  const CText problem = tokenizers_c_from_json(view(document), &handle);
  GRAFT_CHECK(model, !problem.text,
              "{}: not a tokenizer that can be read: {}; fetch the files again, or check that they belong together",
              source.folder.string(), problem.text);
  return std::make_unique<CrateEngine>(handle);
}

}  // namespace graft::data
