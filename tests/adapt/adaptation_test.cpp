// The stage of adaptation as it saves: what a later session needs is in the newest checkpoint, whatever stopped it.
#include "graft/adapt/adaptation.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>
#include <cstdint>

#include "graft/core/error.h"
#include "tests/models/cases.h"

namespace graft::adapt {
namespace {

using tests::Case;

/// The case's examples; from the `left`-th loss on it is NaN.
struct Poisoned final : train::Stream {
  Poisoned(const Case& c, const features::Feed& feed, int64_t left) : stream(c.stream(feed)), left(left) {}
  int64_t size() const override { return stream.size(); }
  int64_t rows(int64_t example) const override { return stream.rows(example); }
  std::map<std::string, train::Activations> enter(const std::vector<int64_t>& examples, uint64_t epoch) const override {
    return stream.enter(examples, epoch);
  }
  double weight(const std::vector<int64_t>& examples, uint64_t epoch) const override {
    return stream.weight(examples, epoch);
  }
  train::Tensor loss_sum(const train::Outputs& outputs, const std::vector<int64_t>& examples,
                         uint64_t epoch) const override {
    const auto sum = stream.loss_sum(outputs, examples, epoch);
    return left-- > 1 ? sum : sum * NAN;
  }
  train::Predictions predictions() const override { return stream.predictions(); }
  void collect(const train::Outputs& outputs, const std::vector<int64_t>& examples,
               train::Predictions& into) const override {
    stream.collect(outputs, examples, into);
  }
  train::Supervised stream;
  mutable int64_t left;
};

TEST(Adaptation, ALossThatIsNotFiniteLeavesTheBestWeightsInACheckpoint) {
  at::set_num_threads(1);
  Case c("bert_masked_lm", 1, 0.0);
  const features::Feed feed(*c.model, *c.inputs);
  c.model->unfreeze_only(c.model->all_groups());
  Objective objective{.name = "masked_lm", .counts = Json::object()};
  objective.training = std::make_shared<Poisoned>(c, feed, 8);  // three steps an epoch: in the second step of the third
  objective.held_out = std::make_shared<Poisoned>(c, feed, INT64_MAX);
  std::map<int64_t, Tensors> after;  // by epoch
  int64_t best = 0;
  Json saved;
  Tensors tensors;
  Hooks hooks;
  hooks.journal = [&](const std::string& event, const Json& fields) {
    if (event != "epoch") return;
    after[fields["epoch"].get<int64_t>()] = tests::tensors_of(*c.model);
    if (fields["best"].get<bool>()) best = fields["epoch"];
  };
  hooks.save = [&](const Json& state, const Tensors& saving, bool must) {
    if (must) saved = state, tensors = saving;
  };
  report::Progress quiet(true);
  hooks.progress = &quiet;
  AdaptOptions options;
  options.epochs = 5;
  options.batch_size = 4;
  options.learning_rate = 1e-2;
  Adaptation stage(*c.model, objective, options, {}, 1, false, hooks);
  try {
    stage.run();
    FAIL() << "the loss was NaN";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind, Kind::numerical);
    EXPECT_TRUE(std::string(e.what()).starts_with("masked_lm, epoch 3, step 2: the loss is nan")) << e.what();
  }
  ASSERT_GT(best, 0);
  ASSERT_FALSE(saved.is_null());
  EXPECT_EQ(saved["phase"]["epoch"], 2);
  EXPECT_EQ(saved["phase"]["best_epoch"], best);
  for (const auto& item : c.model->parameters_by_key())
    EXPECT_TRUE(tests::same(tensors.at("best." + item.key()), after.at(best).at(item.key()))) << item.key();
}

}  // namespace
}  // namespace graft::adapt
