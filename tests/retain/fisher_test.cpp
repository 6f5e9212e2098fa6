// The fast Fisher equals the loop over single examples, for every architecture, head and toy (shared and tied weights,
// sequences, convolutions, norms, tables that all examples share).
#include "graft/retain/fisher.h"

#include <gtest/gtest.h>

#include "graft/adapt/causal_lm.h"
#include "graft/adapt/masked_lm.h"
#include "graft/core/random.h"
#include "graft/retain/own_labels.h"
#include "graft/retain/per_example.h"
#include "tests/fixtures.h"
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

/// Packed sequences and masked texts: rows that are of pieces, and labels drawn at masked positions only.
TEST(Fisher, OfPackedAndMaskedTextIsThatOfTheLoop) {
  at::set_num_threads(1);
  Random random(3);
  Case causal("llama_causal_lm");
  adapt::PackedSequences packed(12);
  for (int i = 0; i < 14; ++i) {
    std::vector<int32_t> ids(2 + random.below(9));
    for (auto& id : ids) id = static_cast<int32_t>(random.below(37));
    packed.add(ids);
  }
  Case masked("bert_masked_lm");
  adapt::AdaptOptions options;
  const Scratch scratch;
  std::string vocabulary = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n";
  for (int i = 5; i < 37; ++i) vocabulary += "w" + std::to_string(i) + "\n";
  write_text(scratch / "vocab.txt", vocabulary);
  const adapt::MaskRules rules(data::Tokenizer::load(scratch.path), 37, options);
  for (auto* c : {&causal, &masked}) {
    for (auto& item : c->model->parameters_by_key()) item.value().set_data(item.value().to(torch::kFloat64));
    for (auto& item : c->model->buffers_by_key())
      if (item.value().is_floating_point()) item.value().set_data(item.value().to(torch::kFloat64));
    c->model->unfreeze_only(c->model->all_groups());
  }
  const adapt::CausalLm sequences(*causal.model, packed);
  const adapt::MaskedLm texts(*masked.model, dynamic_cast<const features::TextInputs&>(*masked.inputs), rules, 4);
  EXPECT_GT(packed.size(), 5);
  const OwnLabels drawn(sequences, "causal_lm", 3), drawn_masked(texts, "masked_lm", 3);
  const auto fast = fisher(*causal.model, drawn, all_of(drawn), {.batch_rows = 50});
  expect_equal(fast, fisher(*causal.model, drawn, all_of(drawn), {.loop = true}));
  EXPECT_EQ(fast.looped, std::vector<std::string>{});
  const auto fast_masked = fisher(*masked.model, drawn_masked, all_of(drawn_masked), {.batch_rows = 50});
  expect_equal(fast_masked, fisher(*masked.model, drawn_masked, all_of(drawn_masked), {.loop = true}));
  // Only what is masked has labels: the outputs are as many as masks.
  const auto examples = all_of(texts);
  const auto outputs = train::forward_behind(*masked.model, drawn_masked.enter(examples, train::kEvaluation),
                                             drawn_masked.reads(examples, train::kEvaluation));
  EXPECT_EQ(outputs.at("logits").size(0), static_cast<int64_t>(texts.weight(examples, train::kEvaluation)));
}

}  // namespace
}  // namespace graft::retain
