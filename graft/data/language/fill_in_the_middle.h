// Texts taken apart so that the middle comes last: a left-to-right model learns to fill gaps.
// Paper:  Bavarian et al. 2022, https://arxiv.org/abs/2207.14255 (cuts between characters, both orders, per context).
// Order:  as StarCoder's: prefix token, prefix, suffix token, suffix, middle token, middle, end token.
#pragma once

#include "graft/data/language/options.h"
#include "graft/data/tokenizers/tokenizer.h"

namespace graft::data {

class FillInTheMiddle {
 public:
  /// Throws Kind::model when the rate is above 0 and the vocabulary has no such tokens (names those looked for).
  FillInTheMiddle(const Tokenizer& tokenizer, const LanguageOptions& options, uint64_t seed);

  /// Whether this text is taken apart: drawn once for each.
  bool applies(uint64_t index) const;
  /// The text's ids with all special tokens and the end token. `index` decides the cuts and the order.
  std::vector<int32_t> ids(std::string_view text, uint64_t index) const;
  /// The beginning of a text that `ids()` keeps within `max_length` tokens, and a text's parts of that size.
  std::vector<std::string_view> parts(std::string_view text, int64_t max_length) const;

 private:
  const Tokenizer& tokenizer_;
  double rate_, suffix_first_;
  uint64_t seed_;
  int32_t prefix_ = -1, suffix_ = -1, middle_ = -1;
  std::vector<int32_t> begin_;  // what the tokenizer puts before a text
  std::optional<int32_t> end_;
};

}  // namespace graft::data
