// What image models do beside the laws: batch norm in frozen blocks, images that do not fit.
#include <gtest/gtest.h>

#include "tests/fixtures.h"
#include "tests/models/cases.h"

namespace graft::models {
namespace {

using namespace tests;

void forward(const Case& c) {
  const torch::NoGradGuard no_grad;
  c.model->forward("image", 0, static_cast<int64_t>(c.model->chains.front().blocks.size()),
                   c.inputs->batch("image", {0, 1, 2, 3}), {});
}

/// Keys whose bytes differ.
std::set<std::string> changed(const std::map<std::string, Tensor>& before, const Model& model) {
  std::set<std::string> keys;
  for (const auto& [key, value] : tensors_of(model))
    if (!same(value, before.at(key))) keys.insert(key);
  return keys;
}

TEST(FrozenBatchNorm, StatisticsStayThoughTheModelIsPutInTrainingMode) {
  const Case c("resnet_classification");
  auto& model = *c.model;
  const auto before = tensors_of(model);
  model.unfreeze_only({"head"});
  for (int i = 0; i < 2; ++i) model.train(), forward(c);  // also when train() is called again
  EXPECT_TRUE(changed(before, model).empty());

  const auto last = model.groups.back();
  model.unfreeze_only({"head", last.name});
  model.train();
  forward(c);
  const auto moved = changed(before, model);
  EXPECT_FALSE(moved.empty());
  for (const auto& key : moved) {
    EXPECT_EQ(model.group_of(key), last.name) << key;
    EXPECT_TRUE(key.find("running_") != std::string::npos || key.ends_with("num_batches_tracked")) << key;
  }

  // The batch has its weight in the statistics: 0.9 of the old mean (0) and 0.1 of the batch's.
  model.unfreeze_only({model.groups.front().name});
  model.train();
  const auto x = c.inputs->batch("image", {0, 1, 2, 3}).kept.at("pixel_values").values;
  const auto parameters = tensors_of(model);
  forward(c);
  const auto mean = torch::conv2d(x, parameters.at("conv1.weight"), {}, 1, 1).mean({0, 2, 3});
  EXPECT_LE(relative_difference(tensors_of(model).at("bn1.running_mean"), 0.1 * mean), 1e-5);
}

TEST(ImageModels, AnImageThatDoesNotFitIsASentence) {
  for (const auto* name : {"vit_classification", "dinov2_classification"}) {
    const Case c(name);
    const auto message = [&](std::vector<int64_t> shape) {
      Activations x;
      x.kept["pixel_values"] = {torch::zeros(shape), {1}};
      return message_of([&] { c.model->forward("image", 0, 1, x, {}); });
    };
    EXPECT_EQ(message({1, 3, 4, 16}),
              "pixel_values: an image has 3 channels and 4 by 16 pixels; the model takes 3 channels and at least one "
              "patch of 8 by 8 pixels.");
    EXPECT_NE(message({1, 1, 16, 16}).find("has 1 channels"), std::string::npos);
    EXPECT_EQ(message({1, 3, 24, 16}), "");  // another size is fine: positions are resized
  }
  for (const auto* name : {"resnet_classification", "swin_classification"}) {
    const Case c(name);
    Activations x;
    x.kept["pixel_values"] = {torch::zeros({1, 4, 16, 16}), {1}};
    EXPECT_EQ(message_of([&] { c.model->forward("image", 0, 1, x, {}); }),
              "pixel_values: an image has 4 channels, the model takes 3.");
  }
}

TEST(Swin, AnImageOfAnotherShapeIsComputed) {
  const Case c("swin_classification");
  const torch::NoGradGuard no_grad;
  c.model->eval();
  Activations x;
  x.kept["pixel_values"] = {torch::ones({2, 3, 22, 9}), {1, 1}};  // 11 by 5 patches, the last column padded
  const auto end = c.model->forward("image", 0, 4, x, {}).hidden;
  EXPECT_EQ(end.lengths, (std::vector<int64_t>{18, 18}));  // 6 by 3 behind the merging
  EXPECT_EQ(end.values.sizes(), (std::vector<int64_t>{36, 16}));
}

TEST(Swin, AbsolutePositionsAreRefused) {
  EXPECT_NE(message_of([] {
              find_architecture({{"model_type", "swin"}})
                  .create({{"model_type", "swin"}, {"use_absolute_embeddings", true}}, {"features"});
            }).find("use_absolute_embeddings"),
            std::string::npos);
}

}  // namespace
}  // namespace graft::models
