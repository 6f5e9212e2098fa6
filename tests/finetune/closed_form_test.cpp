// The head's start in closed form: the optimum of ridge regression, whatever the scale of the features.
#include "graft/finetune/closed_form.h"

#include <gtest/gtest.h>
#include <torch/nn/functional.h>
#include <torch/nn/modules/linear.h>

#include "graft/train/ridge.h"
#include "tests/models/cases.h"

namespace graft::finetune {
namespace {

using tests::Case;
using torch::Tensor;

TEST(Ridge, EqualsTheNormalEquationsAndItsLeftOutPredictionsAFitWithoutTheExample) {
  torch::manual_seed(1);
  for (const int64_t d : {3, 40}) {  // fewer and more dimensions than examples
    const auto x = torch::randn({20, d}, torch::kFloat64) * 3 + 5, y = torch::randn({20, 2}, torch::kFloat64);
    double penalty = 0;
    Tensor chosen;
    const auto fit =
        train::ridge(x, y, [&](const Tensor& left_out) { return -(left_out - y).square().sum().item<double>(); });
    const auto mean = x.mean(0, true), scale = (x - mean).square().mean(0, true).sqrt(), z = (x - mean) / scale;
    double nearest = 1e300;
    for (const double strength : {1e-3, 1e-2, 1e-1, 1e0, 1e1, 1e2}) {
      const auto matrix = z.t().matmul(z) + strength * 20 * torch::eye(d, torch::kFloat64);
      const auto weight = (std::get<0>(torch::linalg_solve_ex(matrix, z.t().matmul(y - y.mean(0)))) / scale.t()).t();
      const double difference = (weight - fit.weight).abs().max().item<double>();
      if (difference < nearest) nearest = difference, penalty = strength * 20;
    }
    EXPECT_LT(nearest, 1e-9);
    EXPECT_LT((x.matmul(fit.weight.t()) + fit.bias - y).mean(0).abs().max().item<double>(), 1e-9);
    // Without example 7, with the same penalty and the same standardisation up to its own part in it.
    const auto kept = torch::cat({z.slice(0, 0, 7), z.slice(0, 8)}),
               wanted = torch::cat({y.slice(0, 0, 7), y.slice(0, 8)});
    auto design = torch::cat({kept, torch::ones({19, 1}, torch::kFloat64)}, 1);
    auto strengths = torch::full({d + 1}, penalty, torch::kFloat64);
    strengths[d] = 0;
    const auto solution = std::get<0>(
        torch::linalg_solve_ex(design.t().matmul(design) + torch::diag(strengths), design.t().matmul(wanted)));
    const auto given = z[7].matmul(solution.slice(0, 0, d)) + solution[d];
    EXPECT_LT((given - fit.left_out[7]).abs().max().item<double>(), 1e-9);
  }
}

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

/// A dense layer and a classifier behind one frozen chain.
struct TwoLayers final : models::Head {
  TwoLayers() {
    dense = register_module("dense", torch::nn::Linear(8, 6));
    classifier = register_module("classifier", torch::nn::Linear(6, 3));
  }
  models::Reads reads() const override { return {models::Reads::Where::first}; }
  models::Outputs forward(const std::map<std::string, models::Activations>& ends) override {
    return {{"logits", classifier(torch::tanh(dense(ends.begin()->second.hidden.values)))}};
  }
  torch::nn::Linear dense{nullptr}, classifier{nullptr};
};

TEST(ClosedForm, StartsTheHeadWhereNoLearningRateIsNeeded) {
  for (const double scale : {1.0, 1e-3}) {
    Case c("bert_classification", 1, 0.0);
    torch::manual_seed(2);
    c.model->head = std::make_shared<TwoLayers>();
    c.model->unfreeze_only({"head"});
    const Nearly stream(*c.model, scale);
    const auto dense = std::dynamic_pointer_cast<TwoLayers>(c.model->head)->dense->weight.clone();
    ASSERT_TRUE(closed_form_start(*c.model, stream, 16, false, 1));
    const auto predictions = train::evaluate(*c.model, stream, 16, false);
    EXPECT_GT(train::accuracy(predictions.scores.argmax(1), stream.labels), 0.9) << scale;
    const auto loss = torch::nn::functional::cross_entropy(predictions.scores, stream.labels).item<double>();
    EXPECT_LT(loss, 0.6) << "the logits have the scale of a trained head";
    EXPECT_TRUE(std::dynamic_pointer_cast<TwoLayers>(c.model->head)->dense->weight.equal(dense));
  }
}

TEST(ClosedForm, LeavesOtherTasksAsTheyAre) {
  Case c("bert_classification", 1, 0.0);
  const Nearly stream(*c.model, 1);
  struct Tokens final : train::Stream {
    explicit Tokens(const Nearly& nearly) : nearly(nearly) {}
    int64_t size() const override { return nearly.size(); }
    int64_t rows(int64_t e) const override { return nearly.rows(e); }
    std::map<std::string, models::Activations> enter(const std::vector<int64_t>& e, uint64_t v) const override {
      return nearly.enter(e, v);
    }
    double weight(const std::vector<int64_t>&, uint64_t) const override { return 1; }
    Tensor loss_sum(const train::Outputs&, const std::vector<int64_t>&, uint64_t) const override { return {}; }
    train::Predictions predictions() const override { return {.task = "tokens"}; }
    void collect(const train::Outputs&, const std::vector<int64_t>&, train::Predictions&) const override {}
    const Nearly& nearly;
  };
  EXPECT_FALSE(closed_form_start(*c.model, Tokens(stream), 16, false, 1));
}

}  // namespace
}  // namespace graft::finetune
