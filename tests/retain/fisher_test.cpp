// The fast Fisher equals the loop over single examples, for every architecture, head and toy (shared and tied weights,
// sequences, convolutions, norms, tables that all examples share).
#include "graft/retain/fisher.h"

#include <gtest/gtest.h>

#include "graft/retain/own_labels.h"
#include "graft/retain/per_example.h"
#include "tests/models/cases.h"

namespace graft::retain {
namespace {

using namespace tests;

std::vector<int64_t> all_of(const train::Stream& stream) {
  std::vector<int64_t> examples(stream.size());
  for (size_t i = 0; i < examples.size(); ++i) examples[i] = static_cast<int64_t>(i);
  return examples;
}

void expect_equal(const Fisher& fast, const Fisher& loop) {
  double moved = 0;
  for (const auto& [key, expected] : loop.diagonal) {
    const auto scale = expected.abs().max().item<double>();
    moved += scale;
    EXPECT_LE((fast.diagonal.at(key) - expected).abs().max().item<double>(), 1e-6 * scale + 1e-12) << key;
  }
  EXPECT_GT(moved, 0);
}

class EveryModel : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    at::set_num_threads(1);
    // In float64 the comparison is of formulas, not of rounding.
    for (auto& item : c.model->parameters_by_key()) item.value().set_data(item.value().to(torch::kFloat64));
    for (auto& item : c.model->buffers_by_key())
      if (item.value().is_floating_point()) item.value().set_data(item.value().to(torch::kFloat64));
  }
  Case c{GetParam()};
};

/// Enters in float64.
struct Double final : train::Stream {
  explicit Double(const train::Stream& stream) : stream(stream) {}
  int64_t size() const override { return stream.size(); }
  int64_t rows(int64_t example) const override { return stream.rows(example); }
  std::map<std::string, train::Activations> enter(const std::vector<int64_t>& examples, uint64_t epoch) const override {
    auto entering = stream.enter(examples, epoch);
    for (auto& [chain, x] : entering)
      for (auto& [slot, rows] : x.kept)
        if (rows.values.is_floating_point()) rows.values = rows.values.to(torch::kFloat64);
    return entering;
  }
  double weight(const std::vector<int64_t>& examples, uint64_t epoch) const override {
    return stream.weight(examples, epoch);
  }
  train::Tensor loss_sum(const train::Outputs& outputs, const std::vector<int64_t>& examples,
                         uint64_t epoch) const override {
    return stream.loss_sum(outputs, examples, epoch);
  }
  train::Predictions predictions() const override { return stream.predictions(); }
  void collect(const train::Outputs& o, const std::vector<int64_t>& e, train::Predictions& p) const override {
    stream.collect(o, e, p);
  }
  const train::Stream& stream;
};

TEST_P(EveryModel, FastFisherEqualsTheLoopOverExamples) {
  c.model->unfreeze_only(c.model->all_groups());
  const features::Feed feed(*c.model, *c.inputs);
  const auto stream = c.stream(feed);
  const Double wide(stream);
  const auto before = tensors_of(*c.model);
  const auto examples = all_of(stream);
  const auto loop = fisher(*c.model, wide, examples, {.loop = true});
  for (const int64_t rows : {1 << 20, 11}) {
    const auto fast = fisher(*c.model, wide, examples, {.batch_rows = rows});
    expect_equal(fast, loop);
  }
  for (const auto& [key, value] : tensors_of(*c.model)) EXPECT_TRUE(same(value, before.at(key))) << key;
}

TEST_P(EveryModel, LabelsOfItsOwnAreTheSameHoweverBatched) {
  c.model->unfreeze_only(c.model->all_groups());
  const features::Feed feed(*c.model, *c.inputs);
  const auto stream = c.stream(feed);
  const Double wide(stream);
  const OwnLabels own(wide, c.task, 3);
  const auto examples = all_of(stream);
  const auto loop = fisher(*c.model, own, examples, {.loop = true});
  expect_equal(fisher(*c.model, own, examples, {.batch_rows = 13}), loop);
  const OwnLabels other(wide, c.task, 4);
  double difference = 0;
  for (const auto& [key, value] : fisher(*c.model, other, examples).diagonal)
    difference += (value - loop.diagonal.at(key)).abs().sum().item<double>();
  EXPECT_GT(difference, 0) << "another seed draws other labels";
}

INSTANTIATE_TEST_SUITE_P(Fisher, EveryModel, testing::ValuesIn(case_names()),
                         [](const auto& info) { return test_name(info.param); });

TEST(Fisher, MostLayersNeedNoLoop) {
  at::set_num_threads(1);
  for (const auto* name : {"bert_classification", "bert_tokens", "bert_masked_lm", "roberta_masked_lm",
                           "llama_classification", "resnet_classification", "efficientnet_classification"}) {
    Case c(name);
    c.model->unfreeze_only(c.model->all_groups());
    const features::Feed feed(*c.model, *c.inputs);
    const auto stream = c.stream(feed);
    EXPECT_EQ(fisher(*c.model, stream, all_of(stream)).looped, std::vector<std::string>{}) << name;
  }
}

TEST(Fisher, SquaresOfABatchsGradientAreAnotherNumber) {
  at::set_num_threads(1);
  Case c("bert_classification");
  c.model->unfreeze_only(c.model->all_groups());
  const features::Feed feed(*c.model, *c.inputs);
  const auto stream = c.stream(feed);
  const auto examples = all_of(stream);
  const auto right = fisher(*c.model, stream, examples).diagonal.at("classifier.weight");
  c.model->eval();
  train::forward_behind(*c.model, stream.enter(examples, train::kEvaluation), std::nullopt);
  const auto outputs = train::forward_behind(*c.model, stream.enter(examples, train::kEvaluation), std::nullopt);
  (stream.loss_sum(outputs, examples, train::kEvaluation) / 12).backward();
  const auto wrong = c.model->parameters_by_key()["classifier.weight"].grad().square();
  EXPECT_GT(relative_difference(wrong, right), 0.3);
}

TEST(Fisher, OfALinearLayerWithTwoRowsAnExampleByHand) {
  // Gradients of one example: g1 x1^T + g2 x2^T. One example: g = (1, 2), x = (3, 1); squares of (1*3 + 2*1) = 25.
  Use use{
      Use::Kind::matrix, torch::tensor({{3.0f}, {1.0f}, {2.0f}}), torch::tensor({{1.0f}, {2.0f}, {5.0f}}), {0, 2, 3}};
  auto squares = torch::zeros({1, 1});
  use.add_squares(squares);
  EXPECT_FLOAT_EQ(squares.item<float>(), 25 + 100);
  // A table: two rows of one example with the same id are one gradient.
  Use table{Use::Kind::table,
            torch::tensor({int64_t{1}, int64_t{1}, int64_t{1}}),
            torch::tensor({{1.0f}, {2.0f}, {5.0f}}),
            {0, 2, 3}};
  auto rows = torch::zeros({3, 1});
  table.add_squares(rows);
  EXPECT_FLOAT_EQ(rows[1].item<float>(), 9 + 25);
  EXPECT_FLOAT_EQ(rows[0].item<float>(), 0);
}

}  // namespace
}  // namespace graft::retain
