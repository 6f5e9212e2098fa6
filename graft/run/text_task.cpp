#include "graft/run/text_task.h"

#include "graft/core/error.h"

namespace graft::run {

void check_tokenizer(const data::Tokenizer& tokenizer, const models::Source& source) {
  const auto rows = source.config.value("vocab_size", int64_t{0});
  GRAFT_CHECK(model, rows == 0 || tokenizer.vocab_size() <= rows,
              "{}: the tokenizer has {} ids, but config.json's vocab_size gives the embedding {} rows. The tokenizer "
              "does not belong to these weights; use the files of one model.",
              source.folder.string(), tokenizer.vocab_size(), rows);
}

void settle_padding(const data::Tokenizer& tokenizer, models::Source& source) {
  if (source.architecture->language_task != "causal_lm") return;
  auto& pad = source.config["pad_token_id"];
  if (pad.is_number_integer() && pad.get<int64_t>() >= 0) return;
  for (const auto* role : {"pad_token", "eos_token"})
    if (const auto id = tokenizer.special_id(role)) {
      pad = *id;
      return;
    }
}

int64_t length_limit(int64_t wanted, const data::Tokenizer& tokenizer, const models::Model& model) {
  return std::min({wanted, tokenizer.model_max_length().value_or(wanted), model.max_tokens()});
}

features::TextInputs tokenized(const data::Tokenizer& tokenizer, const models::Model& model,
                               const data::Examples& examples, int64_t max_length, bool keep_words) {
  features::TextInputs inputs(model, max_length);
  inputs.keep_words = keep_words;
  inputs.add(tokenizer, examples.texts, examples.pairs);
  return inputs;
}

}  // namespace graft::run
