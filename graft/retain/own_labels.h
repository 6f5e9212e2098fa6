// A stream whose labels are drawn from the model's own outputs: the Fisher's definition, and the only way where nobody has
// the labels that the source was trained with. Classes and tokens are drawn from the softmax, several labels each for
// itself, numbers and features from a normal distribution of variance 1 around the output.
#pragma once

#include "graft/train/stream.h"

namespace graft::retain {

class OwnLabels final : public train::Stream {
 public:
  /// `inputs` gives the examples; its labels are not looked at. `task` is what the model's head is for: classification,
  /// multilabel, regression, tokens, masked_lm, causal_lm or features. What is drawn is a function of `seed` and example.
  OwnLabels(const train::Stream& inputs, std::string task, uint64_t seed)
      : inputs_(inputs), task_(std::move(task)), seed_(seed) {}

  int64_t size() const override { return inputs_.size(); }
  int64_t rows(int64_t example) const override { return inputs_.rows(example); }
  std::map<std::string, train::Activations> enter(const std::vector<int64_t>& examples, uint64_t epoch) const override;
  std::optional<train::Reads> reads(const std::vector<int64_t>& examples, uint64_t epoch) const override {
    return inputs_.reads(examples, epoch);
  }
  double weight(const std::vector<int64_t>& examples, uint64_t) const override {
    return static_cast<double>(examples.size());
  }
  /// -log p(drawn | x), summed over the examples and over the rows of each.
  train::Tensor loss_sum(const train::Outputs& outputs, const std::vector<int64_t>& examples,
                         uint64_t epoch) const override;
  train::Predictions predictions() const override { return {}; }
  void collect(const train::Outputs&, const std::vector<int64_t>&, train::Predictions&) const override {}

 private:
  const train::Stream& inputs_;
  std::string task_;
  uint64_t seed_;
};

}  // namespace graft::retain
