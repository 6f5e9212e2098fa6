// A stream of features as a chain's end gives them, for tests of how a head starts.
#pragma once

#include "graft/train/stream.h"

namespace graft::tests {

using torch::Tensor;

/// Features of a scale of their own, of which one direction tells two classes apart, as a chain's end.
struct Nearly final : train::Stream {
  Nearly(models::Model& model, double scale) : chain(model.chains.front().name) {
    torch::manual_seed(3);
    labels = torch::arange(60, torch::kInt64) % 3;
    const auto width = 8;
    values = (torch::randn({60, width}) + 3 * torch::one_hot(labels, width)) * scale + 1;
  }
  int64_t size() const override { return 60; }
  int64_t rows(int64_t) const override { return 1; }
  std::map<std::string, models::Activations> enter(const std::vector<int64_t>& examples, uint64_t) const override {
    models::Activations x;
    x.hidden = {values.index_select(0, torch::tensor(examples, torch::kInt64)),
                std::vector<int64_t>(examples.size(), 1)};
    return {{chain, x}};
  }
  double weight(const std::vector<int64_t>& examples, uint64_t) const override { return examples.size(); }
  Tensor loss_sum(const train::Outputs&, const std::vector<int64_t>&, uint64_t) const override {
    return torch::zeros({});
  }
  train::Predictions predictions() const override {
    return {.task = "classification", .scores = torch::zeros({60, 3}), .targets = labels};
  }
  void collect(const train::Outputs& outputs, const std::vector<int64_t>& examples,
               train::Predictions& into) const override {
    into.scores.index_copy_(0, torch::tensor(examples, torch::kInt64), outputs.at("logits"));
  }
  std::string chain;
  Tensor labels, values;
};

}  // namespace graft::tests
