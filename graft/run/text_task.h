// Text data made ready for a model: tokenizer checked against the model, splits tokenized.
#pragma once

#include "graft/data/dataset.h"
#include "graft/data/tokenizers/tokenizer.h"
#include "graft/features/text_inputs.h"
#include "graft/models/source.h"

namespace graft::run {

/// Throws Kind::model naming both files and both sizes when the tokenizer has more ids than the embedding has rows.
void check_tokenizer(const data::Tokenizer& tokenizer, const models::Source& source);

/// Decoders publish no padding id, and transformers scores no batch without one: the tokenizer's, else its end token, is
/// put into the config before the model is made, so that training and the exported model agree on the last token.
void settle_padding(const data::Tokenizer& tokenizer, models::Source& source);

/// The length limit: the recipe's, the tokenizer's and the model's, whichever is least.
int64_t length_limit(int64_t wanted, const data::Tokenizer& tokenizer, const models::Model& model);

features::TextInputs tokenized(const data::Tokenizer& tokenizer, const models::Model& model,
                               const data::Examples& examples, int64_t max_length, bool keep_words);

}  // namespace graft::run
