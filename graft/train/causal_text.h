// Texts with the tokens that are to be learned of them as a stream for causal language modelling: what finetuning has for
// conversations, prompts and plain texts. Each example has its own positions and sees nothing of its neighbours.
#pragma once

#include "graft/data/ragged.h"
#include "graft/features/feed.h"
#include "graft/train/stream.h"

namespace graft::train {

class CausalText final : public Stream {
 public:
  /// `labels`: per position the token that it predicts, -100 for none (data::LanguageExamples). All must outlive this.
  CausalText(models::Model& model, const features::Feed& feed, const data::Ragged<int32_t>& labels);

  int64_t size() const override { return labels_.size(); }
  int64_t rows(int64_t example) const override;
  std::map<std::string, Activations> enter(const std::vector<int64_t>& examples, uint64_t epoch) const override;
  /// Tokens that the loss counts.
  double weight(const std::vector<int64_t>& examples, uint64_t epoch) const override;
  /// The head's own `loss`: it is given the labels, and never makes the whole matrix of logits.
  Tensor loss_sum(const Outputs& outputs, const std::vector<int64_t>& examples, uint64_t epoch) const override;
  /// Loss and tokens of each example, so that the metric can be resampled.
  Predictions predictions() const override;
  void collect(const Outputs& outputs, const std::vector<int64_t>& examples, Predictions& into) const override;

 private:
  int64_t learned(int64_t example) const;

  models::Model& model_;
  const features::Feed& feed_;
  const data::Ragged<int32_t>& labels_;
};

}  // namespace graft::train
