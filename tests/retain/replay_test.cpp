// How many examples are replayed, which, and through which head.
#include "graft/retain/replay.h"

#include <gtest/gtest.h>

#include <numeric>

#include "tests/models/cases.h"

namespace graft::retain {
namespace {

using namespace tests;

struct ReplayTest : testing::Test {
  void SetUp() override { at::set_num_threads(1); }
  Case c{"bert_classification", 1, 0.0};
  models::Model& model = *c.model;
  features::Feed feed{model, *c.inputs};
  train::Supervised stream = c.stream(feed);
  std::vector<int64_t> all() const {
    std::vector<int64_t> examples(stream.size());
    std::iota(examples.begin(), examples.end(), 0);
    return examples;
  }
  static train::WholeStep step(models::Model& model, uint64_t epoch, int64_t index, int64_t examples) {
    return {.model = model, .epoch = epoch, .step = index, .steps = 100, .examples = examples, .seed = 5};
  }
};

/// Counts what it is asked for.
struct Counting final : train::Stream {
  explicit Counting(const train::Stream& stream) : stream(stream) {}
  int64_t size() const override { return stream.size(); }
  int64_t rows(int64_t example) const override { return stream.rows(example); }
  std::map<std::string, train::Activations> enter(const std::vector<int64_t>& examples, uint64_t epoch) const override {
    seen.insert(seen.end(), examples.begin(), examples.end());
    return stream.enter(examples, epoch);
  }
  double weight(const std::vector<int64_t>& examples, uint64_t epoch) const override {
    return stream.weight(examples, epoch);
  }
  train::Tensor loss_sum(const train::Outputs& outputs, const std::vector<int64_t>& examples,
                         uint64_t epoch) const override {
    return stream.loss_sum(outputs, examples, epoch);
  }
  train::Predictions predictions() const override { return {}; }
  void collect(const train::Outputs&, const std::vector<int64_t>&, train::Predictions&) const override {}
  const train::Stream& stream;
  mutable std::vector<int64_t> seen;
};

TEST_F(ReplayTest, TheFractionIsExactOverAnEpoch) {
  model.unfreeze_only(model.all_groups());
  for (const double fraction : {0.05, 0.2, 0.5, 0.7}) {
    const Counting counting(stream);
    Replay replay(counting, all(), fraction, 3, nullptr);
    int64_t fresh = 0;
    for (int64_t i = 0; i < 40; ++i) {
      const auto examples = i % 7 == 3 ? 2 : 5;  // batches of unequal size
      fresh += examples;
      replay.add_gradients(step(model, 2, i, examples));
    }
    const auto replayed = static_cast<double>(counting.seen.size());
    EXPECT_NEAR(replayed, fraction * (replayed + static_cast<double>(fresh)), 1) << fraction;
    EXPECT_EQ(replay.replayed(), static_cast<int64_t>(counting.seen.size()));
    // Each pass over the source's examples has every one once.
    for (size_t pass = 0; (pass + 1) * 12 <= counting.seen.size(); ++pass) {
      std::vector<int64_t> part(counting.seen.begin() + pass * 12, counting.seen.begin() + (pass + 1) * 12);
      std::sort(part.begin(), part.end());
      EXPECT_EQ(part, all());
    }
  }
}

TEST_F(ReplayTest, StrengthenedTheNewFractionIsExactOverTheNextEpochToo) {
  model.unfreeze_only(model.all_groups());
  const Counting first(stream), second(stream);
  Replay replay(first, all(), 0.1, 3, nullptr), resumed(second, all(), 0.1, 3, nullptr);
  for (int64_t i = 0; i < 11; ++i) replay.add_gradients(step(model, 0, i, 5));
  EXPECT_NEAR(*replay.strengthen(3), 0.25, 1e-12) << "1 to 9 becomes 3 to 9";
  first.seen.clear();
  resumed.load_state(replay.state());
  for (auto* term : {&replay, &resumed})
    for (int64_t i = 0; i < 11; ++i) term->add_gradients(step(model, 1, i, 5));
  EXPECT_EQ(first.seen.size(), 18u) << "a third of 55";
  EXPECT_EQ(second.seen, first.seen);
  EXPECT_NEAR(*replay.strengthen(10), 0.5, 1e-12);
  EXPECT_FALSE(replay.strengthen(2)) << "it has as many old examples as new ones";
}

TEST_F(ReplayTest, TakesUpAgainWhereItStood) {
  model.unfreeze_only(model.all_groups());
  const Counting whole(stream), first(stream), second(stream);
  Replay unbroken(whole, all(), 0.3, 3, nullptr), before(first, all(), 0.3, 3, nullptr);
  for (int64_t i = 0; i < 9; ++i) unbroken.add_gradients(step(model, 1, i, 4));
  for (int64_t i = 0; i < 5; ++i) before.add_gradients(step(model, 1, i, 4));
  Replay after(second, all(), 0.3, 3, nullptr);
  after.load_state(before.state());
  for (int64_t i = 5; i < 9; ++i) after.add_gradients(step(model, 1, i, 4));
  auto joined = first.seen;
  joined.insert(joined.end(), second.seen.begin(), second.seen.end());
  EXPECT_EQ(joined, whole.seen);
}

TEST_F(ReplayTest, TheGradientIsThatOfTheReplayedExamplesThroughTheOldHead) {
  Case old("bert_classification", 9, 0.0);
  old.model->unfreeze_only({});
  model.unfreeze_only(model.all_groups());
  model.train();
  const Counting counting(stream);
  const auto own = model.head;
  Replay replay(counting, all(), 0.5, 3, old.model->head);
  const auto value = replay.add_gradients(step(model, 0, 0, 4));
  ASSERT_EQ(counting.seen.size(), 4u);
  EXPECT_EQ(model.head, own);
  std::map<std::string, models::Tensor> gradients;
  for (auto& item : model.parameters_by_key()) {
    gradients[item.key()] = item.value().grad();
    item.value().mutable_grad() = models::Tensor();
  }
  EXPECT_FALSE(gradients.at("classifier.weight").defined()) << "the new head has no part in it";
  for (const auto& item : old.model->head->named_parameters()) EXPECT_FALSE(item.value().grad().defined());
  model.head = old.model->head;
  const auto outputs = train::forward_behind(model, stream.enter(counting.seen, 0), std::nullopt);
  const auto loss = stream.loss_sum(outputs, counting.seen, 0) / 4;
  loss.backward();
  model.head = own;
  EXPECT_NEAR(value, loss.item<double>(), 1e-5);
  const auto key = "bert.encoder.layer.0.intermediate.dense.weight";
  EXPECT_LE(relative_difference(gradients.at(key), model.parameters_by_key()[key].grad()), 1e-5);
}

TEST_F(ReplayTest, FrozenBlocksAndAnOldHeadLearnNothing) {
  model.unfreeze_only({"head"});
  const Counting counting(stream);
  Case old("bert_classification", 9, 0.0);
  old.model->unfreeze_only({});
  Replay replay(counting, all(), 0.5, 3, old.model->head);
  EXPECT_EQ(replay.add_gradients(step(model, 0, 0, 4)), 0);
  EXPECT_TRUE(counting.seen.empty());
  EXPECT_EQ(replay.replayed(), 4) << "the count goes on as if they had been";
}

TEST_F(ReplayTest, DarkExperienceHoldsTheLogitsOfTheSourceBesideTheLabels) {
  Case old("bert_classification", 9, 0.0);
  const features::Feed old_feed(*old.model, *old.inputs);
  const auto before = answers(*old.model, old_feed, old.model->head->reads(), true);
  old.model->unfreeze_only({});
  model.unfreeze_only(model.all_groups());
  const Counting counting(stream);
  Replay labels(counting, all(), 0.5, 3, old.model->head);
  Replay dark(counting, all(), 0.5, 3, old.model->head, {.logits = before, .logits_weight = 0.7});
  model.eval();
  const auto plain = labels.add_gradients(step(model, 0, 0, 4)), with_logits = dark.add_gradients(step(model, 0, 0, 4));
  const std::vector<int64_t> chosen(counting.seen.begin(), counting.seen.begin() + 4);
  const auto own = model.head;
  model.head = old.model->head;
  const torch::NoGradGuard no_grad;
  const auto now = train::forward_behind(model, stream.enter(chosen, 0), std::nullopt).at("logits");
  model.head = own;
  const auto expected = 0.7 * torch::mse_loss(now, before.of(chosen)).item<double>();
  EXPECT_GT(expected, 0);
  EXPECT_NEAR(with_logits - plain, expected, 1e-5 * std::max(1.0, expected));
}

TEST_F(ReplayTest, DarkExperienceIsNothingWhileTheModelIsTheSource) {
  const auto before = answers(model, feed, model.head->reads(), true);
  model.unfreeze_only(model.all_groups());
  model.eval();
  const Counting counting(stream);
  Replay labels(counting, all(), 0.5, 3, nullptr),
      dark(counting, all(), 0.5, 3, nullptr, {.logits = before, .logits_weight = 10});
  EXPECT_NEAR(dark.add_gradients(step(model, 0, 0, 4)), labels.add_gradients(step(model, 0, 0, 4)), 1e-5);
}

}  // namespace
}  // namespace graft::retain
