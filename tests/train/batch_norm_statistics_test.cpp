// AdaBN: what it changes and what it leaves.
#include "graft/train/batch_norm_statistics.h"

#include <gtest/gtest.h>

#include "graft/features/store.h"
#include "tests/fixtures.h"
#include "tests/models/cases.h"

namespace graft::train {
namespace {

using namespace tests;

TEST(AdaBN, StatisticsAreThoseOfTheExamplesAndNothingElseChanges) {
  at::set_num_threads(1);
  const Case c("resnet_classification", 1, /*dropout=*/0.0);
  auto& model = *c.model;
  model.unfreeze_only({"head"});
  const auto before = tensors_of(model);
  const auto key = [&] { return features::PrefixHashes(model, *c.inputs, {}).key("image", 1, model.head->reads()); };
  const auto stored_as = key();
  // 12 examples in batches of 5, 5 and 2.
  ASSERT_EQ(estimate_batch_norm(model, *c.inputs, 5), 8);
  EXPECT_NE(key(), stored_as) << "a store of the old statistics must not be found";
  const auto after = tensors_of(model);
  for (const auto& [name, value] : before) {
    const bool statistic =
        name.ends_with("running_mean") || name.ends_with("running_var") || name.ends_with("num_batches_tracked");
    EXPECT_EQ(same(value, after.at(name)), !statistic) << name;
  }
  std::vector<int64_t> all(12);
  for (int64_t i = 0; i < 12; ++i) all[i] = i;
  const auto pixels = c.inputs->batch("image", all).kept.at("pixel_values").values;
  const auto maps = torch::conv2d(pixels, before.at("conv1.weight"), {}, 1, 1);
  EXPECT_LE(relative_difference(after.at("bn1.running_mean"), maps.mean({0, 2, 3})), 1e-5);
  // The variance is the average of the batches' own.
  const auto variance = (5 * maps.narrow(0, 0, 5).var({0, 2, 3}) + 5 * maps.narrow(0, 5, 5).var({0, 2, 3}) +
                         2 * maps.narrow(0, 10, 2).var({0, 2, 3})) /
                        12;
  EXPECT_LE(relative_difference(after.at("bn1.running_var"), variance), 1e-5);

  // Of one batch: evaluation then gives what training gives on it, but for the variance's divisor.
  estimate_batch_norm(model, *c.inputs, 100);
  const auto end = [&](bool training) {
    const torch::NoGradGuard no_grad;
    model.unfreeze_only(model.all_groups());
    model.train(training);
    return model.forward("image", 0, 3, c.inputs->batch("image", all), {}).hidden.values;
  };
  const auto evaluated = end(false);
  EXPECT_LE(relative_difference(evaluated, end(true)), 5e-3);
  model.unfreeze_only({"head"});
  estimate_batch_norm(model, *c.inputs, 100);

  // The same again is the same: it does not build on the statistics that were there.
  const auto once = tensors_of(model);
  estimate_batch_norm(model, *c.inputs, 100);
  for (const auto& [name, value] : tensors_of(model)) EXPECT_TRUE(same(value, once.at(name))) << name;
}

TEST(AdaBN, TheModeAndTheMomentumStay) {
  const Case c("resnet_classification", 1, 0.0);
  auto& model = *c.model;
  model.unfreeze_only(model.all_groups());
  model.train();
  estimate_batch_norm(model, *c.inputs, 100);
  EXPECT_TRUE(model.is_training());
  // One step in training mode moves the statistics of the same examples by nothing but rounding: momentum 0.1, same batch.
  std::vector<int64_t> all(12);
  for (int64_t i = 0; i < 12; ++i) all[i] = i;
  const auto before = tensors_of(model);
  const torch::NoGradGuard no_grad;
  model.forward("image", 0, 1, c.inputs->batch("image", {0, 1}), {});
  const auto two = torch::conv2d(c.inputs->batch("image", {0, 1}).kept.at("pixel_values").values,
                                 before.at("conv1.weight"), {}, 1, 1)
                       .mean({0, 2, 3});
  EXPECT_LE(
      relative_difference(tensors_of(model).at("bn1.running_mean"), 0.9 * before.at("bn1.running_mean") + 0.1 * two),
      1e-5);
}

TEST(HeldBatchNorm, StatisticsStayWhereABlockLearnsAndGradientsAreThoseOfFixedOnes) {
  at::set_num_threads(1);
  const Case c("resnet_classification", 1, 0.0);
  auto& model = *c.model;
  EXPECT_TRUE(has_batch_norm(model));
  EXPECT_EQ(hold_batch_norm(model), 8);
  model.unfreeze_only(model.all_groups());
  const auto before = tensors_of(model);
  const auto inputs = c.inputs->batch("image", {0, 1, 2, 3});
  const auto end = [&] { return model.forward("image", 0, 3, inputs, {}).hidden.values; };
  model.train();
  EXPECT_TRUE(model.is_training());
  const auto learning = end();
  learning.square().sum().backward();
  auto kernel = model.parameters_by_key()["conv1.weight"];
  const auto gradient = kernel.grad().clone();
  EXPECT_GT(gradient.abs().max().item<double>(), 0);
  kernel.mutable_grad().reset();
  model.eval();
  const auto fixed = end();
  EXPECT_TRUE(same(learning, fixed)) << "a held norm computes in training what it computes in evaluation";
  fixed.square().sum().backward();
  EXPECT_TRUE(same(kernel.grad(), gradient));
  for (const auto& [name, value] : tensors_of(model)) EXPECT_TRUE(same(value, before.at(name))) << name;
}

TEST(AdaBN, AModelWithoutBatchNormHasNone) {
  const Case c("vit_classification");
  const auto before = tensors_of(*c.model);
  EXPECT_EQ(estimate_batch_norm(*c.model, *c.inputs, 100), 0);
  EXPECT_FALSE(has_batch_norm(*c.model));
  EXPECT_EQ(hold_batch_norm(*c.model), 0);
  for (const auto& [name, value] : tensors_of(*c.model)) EXPECT_TRUE(same(value, before.at(name))) << name;
}

}  // namespace
}  // namespace graft::train
