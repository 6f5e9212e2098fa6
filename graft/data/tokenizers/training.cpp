#include "graft/data/tokenizers/training.h"

#include <memory>
#include <set>

#include "graft/core/error.h"
#include "graft/core/json.h"
#include "graft/data/tokenizers/build.h"
#include "tokenizers_c.h"

namespace graft::data {
namespace {

constexpr int64_t kBytes = 256;

void check(const std::vector<std::string>& texts, const TokenizerTraining& o, const std::vector<std::string>& special) {
  for (const auto& token : special) GRAFT_CHECK(usage, !token.empty(), "special tokens: expected a text, found none");
  GRAFT_CHECK(usage, std::set(special.begin(), special.end()).size() == special.size(),
              "special tokens: expected each once, found {}", listed(special));
  const auto least = kBytes + static_cast<int64_t>(special.size());
  GRAFT_CHECK(usage, o.vocab_size >= least,
              "vocab-size: expected at least {} (256 bytes and {} special tokens), found {}", least, special.size(),
              o.vocab_size);
  GRAFT_CHECK(data, !texts.empty(), "there are no texts to learn a tokenizer from; give a file with text");
}

}  // namespace

std::vector<std::pair<std::string, std::string>> train_tokenizer(const std::vector<std::string>& texts,
                                                                 const TokenizerTraining& options) {
  std::vector<std::string> special{options.end_token};
  special.insert(special.end(), options.special_tokens.begin(), options.special_tokens.end());
  check(texts, options, special);
  const auto view = [](std::string_view text) { return TokenizersCText{text.data(), text.size()}; };
  std::vector<TokenizersCText> rows, tokens;
  for (const auto& text : texts) rows.push_back(view(text));
  for (const auto& token : special) tokens.push_back(view(token));
  const auto empty =
      byte_bpe_document(nlohmann::json::object(), nlohmann::json::array(), nlohmann::json::array(), nullptr, false)
          .dump();
  const TokenizersCTraining settings{.vocab_size = static_cast<size_t>(options.vocab_size),
                                     .min_frequency = static_cast<uint64_t>(options.min_frequency),
                                     .special = tokens.data(),
                                     .special_count = tokens.size()};
  struct Free {
    void operator()(char* text) const { tokenizers_c_free_text(text); }
  };
  char* made = nullptr;
  const std::unique_ptr<char, Free> problem(
      tokenizers_c_train_bpe(view(empty), rows.data(), rows.size(), &settings, &made));
  const std::unique_ptr<char, Free> document(made);
  GRAFT_CHECK(data, !problem, "no tokenizer can be learned from these texts: {}", problem.get());
  const Json config{{"tokenizer_class", "PreTrainedTokenizerFast"},
                    {"bos_token", options.end_token},
                    {"eos_token", options.end_token},
                    {"unk_token", options.end_token},
                    {"clean_up_tokenization_spaces", false}};
  return {{"tokenizer.json", document.get()}, {"tokenizer_config.json", config.dump(2) + "\n"}};
}

}  // namespace graft::data
