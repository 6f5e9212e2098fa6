// Examples for causal language modelling as ids, with what the loss counts: answers and completions, or everything.
#pragma once

#include <functional>
#include <span>

#include "graft/data/language/options.h"
#include "graft/data/ragged.h"
#include "graft/data/table.h"
#include "graft/data/tokenizers/tokenizer.h"

namespace graft::data {

struct LanguageExamples {
  Ragged<int32_t> ids;
  /// As long as ids: the token that a position predicts, -100 where the loss does not count it (the last position always).
  Ragged<int32_t> labels;
  std::vector<int64_t> kept;  // the row of each example
  SkippedRows skipped;
  int64_t truncated = 0;       // examples that were longer than max_length
  int64_t without_answer = 0;  // examples of which nothing is learned, because the answer was cut off
  int64_t lost_answers = 0;    // earlier answers that the chat template rewrites (ChatTemplate::Rendered)
};

/// `rows` as language_row() makes them. Conversations go through the chat template (which may state `options.date`, or
/// today where that is empty) and get no special tokens but the template's; prompts and texts get the tokenizer's, and its
/// end token behind. Plain texts are taken apart at the rate of the options. A conversation that the template refuses is
/// skipped, or throws Kind::data naming `split` and the example, by `bad_rows`.
LanguageExamples language_examples(const Tokenizer& tokenizer, const Ragged<char>& rows, const LanguageOptions& options,
                                   int64_t max_length, uint64_t seed, const std::string& split,
                                   BadRows bad_rows = BadRows::stop);

/// labels from ids and `learned` (1: the token counts).
std::vector<int32_t> labels_of(std::span<const int32_t> ids, std::span<const char> learned);

}  // namespace graft::data
