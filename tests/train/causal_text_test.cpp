// Answers alone count: the stream against the definition, with stored activations and without.
#include "graft/train/causal_text.h"

#include <gtest/gtest.h>
#include <torch/nn/functional.h>

#include "graft/core/random.h"
#include "graft/data/language/language_examples.h"
#include "tests/fixtures.h"
#include "tests/models/cases.h"

namespace graft::train {
namespace {

using namespace tests;
namespace F = torch::nn::functional;

struct CausalTextTest : testing::Test {
  CausalTextTest() : c("llama_causal_lm", 1, 0), inputs(*c.model, 16) {
    Random random(4);
    for (int i = 0; i < 12; ++i) {
      std::vector<int32_t> row(3 + random.below(9));
      std::vector<char> learned(row.size(), 0);
      for (auto& id : row) id = static_cast<int32_t>(random.below(37));
      for (size_t t = row.size() / 2; t < row.size(); ++t) learned[t] = 1;
      if (i == 5) std::fill(learned.begin(), learned.end(), 0);
      inputs.add(row, row);
      labels.push_back(data::labels_of(row, learned));
    }
    c.model->eval();
  }

  /// -log p of the labels of one example, from the logits that the head makes without labels.
  double expected(int64_t example) {
    const torch::NoGradGuard no_grad;
    const auto& chain = c.model->chains.front();
    auto x = inputs.batch(chain.name, {example});
    x = c.model->forward(chain.name, 0, static_cast<int64_t>(chain.blocks.size()), std::move(x),
                         c.model->head->reads());
    const auto logits = c.model->head->forward({{chain.name, x}}).at("logits");
    const auto row = labels[example];
    const auto target = torch::tensor(std::vector<int64_t>(row.begin(), row.end()), torch::kInt64);
    return F::cross_entropy(logits, target, F::CrossEntropyFuncOptions().reduction(torch::kSum).ignore_index(-100))
        .item<double>();
  }

  Case c;
  features::TextInputs inputs;
  data::Ragged<int32_t> labels;
};

TEST_F(CausalTextTest, TheLossOfEachExampleIsThatOfItsAnswer) {
  c.model->unfreeze_only(all_groups(*c.model));
  const features::Feed feed(*c.model, inputs);
  const CausalText stream(*c.model, feed, labels);
  const auto predictions = evaluate(*c.model, stream, 30, false);
  double sum = 0, count = 0;
  for (int64_t i = 0; i < stream.size(); ++i) {
    EXPECT_NEAR(predictions.losses[i], expected(i), 1e-5);
    EXPECT_EQ(predictions.weights[i], stream.weight({i}, 0));
    sum += expected(i);
    count += predictions.weights[i];
  }
  EXPECT_EQ(predictions.losses[5], 0) << "nothing of it is learned";
  EXPECT_NEAR(predictions.loss, sum / count, 1e-6);
  EXPECT_NEAR(metric_of("loss", predictions), predictions.loss, 1e-6);
  EXPECT_NEAR(metric_of("perplexity", predictions, {0, 0}), std::exp(predictions.losses[0] / predictions.weights[0]),
              1e-9);
  // With gradient the head takes another way.
  const auto loss = stream.loss_sum(forward_behind(*c.model, stream.enter({0, 5, 7}, 0), std::nullopt), {0, 5, 7}, 0);
  EXPECT_NEAR(loss.item<double>(), expected(0) + expected(7), 1e-5);
}

TEST_F(CausalTextTest, BehindABoundaryWithAStoreItIsTheSame) {
  Scratch scratch;
  const auto& chain = c.model->chains.front().name;
  features::Feed plain(*c.model, inputs), stored(*c.model, inputs);
  c.model->unfreeze_only({c.model->groups.back().name, "head"});
  const auto boundary = c.model->boundary(chain);
  ASSERT_GT(boundary, 0);
  const auto captured =
      features::capture(*c.model, chain, {boundary}, c.model->head->reads(), inputs, scratch.path, {}, {});
  stored.use(chain, boundary, *captured.stores[0]);
  const CausalText a(*c.model, plain, labels), b(*c.model, stored, labels);
  const std::vector<int64_t> examples{1, 4, 8, 9};
  const auto loss_of = [&](const CausalText& stream) {
    return stream.loss_sum(forward_behind(*c.model, stream.enter(examples, 0), std::nullopt), examples, 0);
  };
  EXPECT_NEAR(loss_of(a).item<double>(), loss_of(b).item<double>(), 1e-5);
  double sum = 0;
  for (const auto i : examples) sum += expected(i);
  EXPECT_NEAR(loss_of(b).item<double>(), sum, 1e-5);
}

}  // namespace
}  // namespace graft::train
