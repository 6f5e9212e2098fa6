#include "graft/run/text_task.h"

#include "graft/core/error.h"

namespace graft::run {

void check_tokenizer(const data::Tokenizer& tokenizer, const models::Source& source) {
  const auto pad = tokenizer.special_id("pad_token");
  const auto stated = source.config.find("pad_token_id");
  if (pad && tokenizer.special_id("cls_token") && stated != source.config.end() && stated->is_number_integer())
    GRAFT_CHECK(model, *stated == *pad,
                "{}: the tokenizer's padding token `{}` has the id {}, but config.json says pad_token_id {}. The "
                "tokenizer does not belong to these weights; use the files of one model.",
                source.folder.string(), tokenizer.token_of(*pad), *pad, stated->dump());
  const auto rows = source.config.value("vocab_size", int64_t{0});
  GRAFT_CHECK(model, rows == 0 || tokenizer.vocab_size() <= rows,
              "{}: the tokenizer has {} ids, but config.json's vocab_size gives the embedding {} rows. The tokenizer "
              "does not belong to these weights; use the files of one model.",
              source.folder.string(), tokenizer.vocab_size(), rows);
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
