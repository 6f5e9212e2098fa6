// Labels drawn from a model's own outputs have the outputs' distribution: by the loss's mean, which is the entropy, and by
// the gradient's square, which is the Fisher of the outputs themselves.
#include "graft/retain/own_labels.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>
#include <numeric>
#include <tuple>

namespace graft::retain {
namespace {

using models::Tensor;

constexpr int64_t kDraws = 20000;

/// Examples that nothing is known of but their number.
struct Numbered final : train::Stream {
  int64_t size() const override { return kDraws; }
  int64_t rows(int64_t) const override { return 1; }
  std::map<std::string, train::Activations> enter(const std::vector<int64_t>&, uint64_t) const override {
    train::Activations x;
    x.kept["labels"] = {torch::zeros({1}), {1}};
    return {{"text", x}};
  }
  double weight(const std::vector<int64_t>&, uint64_t) const override { return 0; }
  Tensor loss_sum(const train::Outputs&, const std::vector<int64_t>&, uint64_t) const override { return {}; }
  train::Predictions predictions() const override { return {}; }
  void collect(const train::Outputs&, const std::vector<int64_t>&, train::Predictions&) const override {}
};

struct Drawn {
  Drawn(const std::string& task, const std::string& output, const Tensor& row, int64_t examples = kDraws) {
    std::vector<int64_t> all(examples);
    std::iota(all.begin(), all.end(), 0);
    auto scores = row.repeat({examples, 1}).requires_grad_();
    const auto loss = OwnLabels(numbered, task, 3).loss_sum({{output, scores}}, all, 0);
    loss.backward();
    mean = loss.item<double>() / static_cast<double>(examples);
    gradient = scores.grad().to(torch::kFloat64);
  }
  Numbered numbered;
  double mean;
  Tensor gradient;  // (examples, K)
};

TEST(OwnLabels, SeveralLabelsAreDrawnEachForItself) {
  const auto scores = torch::tensor({{-2.0f, 0.0f, 1.5f}});
  const Drawn drawn("multilabel", "logits", scores);
  double entropy = 0;
  for (int64_t k = 0; k < 3; ++k) {
    const double p = 1 / (1 + std::exp(-scores[0][k].item<double>()));
    entropy -= p * std::log(p) + (1 - p) * std::log(1 - p);
    // The gradient is p where the label is not drawn, p - 1 where it is.
    const auto g = drawn.gradient.select(1, k);
    EXPECT_NEAR(g.lt(0).to(torch::kFloat64).mean().item<double>(), p, 0.015) << k;
    EXPECT_NEAR(g.square().mean().item<double>(), p * (1 - p), 0.01) << k;
  }
  EXPECT_NEAR(drawn.mean, entropy, 0.03);
  const auto a = drawn.gradient.select(1, 0).lt(0).to(torch::kFloat64),
             b = drawn.gradient.select(1, 2).lt(0).to(torch::kFloat64);
  EXPECT_NEAR((a * b).mean().item<double>(), a.mean().item<double>() * b.mean().item<double>(), 0.01);
}

TEST(OwnLabels, NumbersAndFeaturesAreDrawnAroundTheOutput) {
  for (const auto& [task, output, width] : {std::tuple{"regression", "logits", 1},
                                            {"features", "pooler_output", 4},
                                            {"features", "last_hidden_state", 4}}) {
    const Drawn drawn(task, output, torch::full({1, width}, 5.0f));
    // -log p up to its constant: half a squared normal number for each value.
    EXPECT_NEAR(drawn.mean, 0.5 * width, 0.03 * width) << output;
    EXPECT_NEAR(drawn.gradient.mean().item<double>(), 0, 0.03) << output;
    EXPECT_NEAR(drawn.gradient.square().mean().item<double>(), 1, 0.03) << output;
    // Normal: of a standard normal number 68.3 % lie within 1, 95.4 % within 2.
    const auto within = [&](double limit) {
      return drawn.gradient.abs().lt(limit).to(torch::kFloat64).mean().item<double>();
    };
    EXPECT_NEAR(within(1), std::erf(1 / std::numbers::sqrt2), 0.01) << output;
    EXPECT_NEAR(within(2), std::erf(2 / std::numbers::sqrt2), 0.01) << output;
  }
}

TEST(OwnLabels, WhatIsDrawnIsTheExamplesOwnWhateverItsBatch) {
  for (const std::string task : {"multilabel", "regression", "features"}) {
    const Drawn many(task, "logits", torch::tensor({{0.3f, -0.2f}}), 50),
        few(task, "logits", torch::tensor({{0.3f, -0.2f}}), 7);
    EXPECT_TRUE(many.gradient.slice(0, 0, 7).equal(few.gradient)) << task;
  }
}

TEST(OwnLabels, ACausalHeadIsAskedForItsLogits) {
  const Numbered numbered;
  EXPECT_FALSE(OwnLabels(numbered, "causal_lm", 1).enter({0}, 0).at("text").kept.contains("labels"));
}

}  // namespace
}  // namespace graft::retain
