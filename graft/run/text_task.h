// Text data made ready for a model: tokenizer checked against the model, splits tokenized.
#pragma once

#include "graft/data/tokenizers/tokenizer.h"
#include "graft/features/text_inputs.h"
#include "graft/run/task_inputs.h"

namespace graft::run {

/// Throws Kind::model naming both files and both numbers when the tokenizer has more ids than the embedding has rows, and
/// when it pads, or for a decoder begins or ends texts, by another id than config.json says.
void check_tokenizer(const data::Tokenizer& tokenizer, const models::Source& source);

/// Decoders publish no padding id, and transformers scores no batch without one: the tokenizer's, else its end token, is
/// put into the config before the model is made, so that training and the exported model agree on the last token.
void settle_padding(const data::Tokenizer& tokenizer, models::Source& source);

/// The length limit: the recipe's, the tokenizer's and the model's, whichever is least.
int64_t length_limit(int64_t wanted, const data::Tokenizer& tokenizer, const models::Model& model);

/// The tokenizer's files, to be written beside weights: name and content.
std::map<std::string, std::string> tokenizer_files(const data::Tokenizer& tokenizer, int64_t max_length);

class TextTask final : public TaskInputs {
 public:
  TextTask(const models::Source& source, int64_t max_length, const data::LanguageOptions& language = {});

  void settle(models::Source& source) const override { settle_padding(tokenizer_, source); }
  adapt::Objective objective(models::Model& model, const models::Source& source, const adapt::AdaptOptions& options,
                             uint64_t seed, const std::function<void(int64_t, int64_t)>& progress) override;
  std::shared_ptr<train::Stream> masked(models::Model& model, const models::Source& source,
                                        const features::Inputs& inputs, uint64_t seed) override;
  data::Dataset read(const data::DataOptions& options, uint64_t seed,
                     const std::vector<std::string>& label_names) override;
  data::Examples list(const std::vector<std::string>& given) override;
  Prepared prepare(const models::Model& model, data::Examples& examples, const Wanted& wanted) override;
  Json settings(const models::Model& model) const override;
  std::map<std::string, std::string> files(const models::Model& model) const override;
  bool of_images() const override { return false; }

 private:
  Prepared prepare_language(const models::Model& model, data::Examples& examples, const Wanted& wanted,
                            int64_t limit) const;

  data::Tokenizer tokenizer_;
  int64_t max_length_;
  data::LanguageOptions language_;
  bool decoder_;
};

}  // namespace graft::run
