// What image models do beside the laws: batch norm in frozen blocks, images that do not fit.
#include <gtest/gtest.h>

#include "graft/models/source.h"
#include "graft/models/vision_transformer.h"
#include "graft/nn/drop_path.h"
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

TEST(FrozenBatchNorm, ABatchWeighsInEfficientNetsStatisticsAsItsCodeSays) {
  // transformers: 0.99 for the past, as TensorFlow counts.
  const Case c("efficientnet_classification");
  auto& model = *c.model;
  const auto parameters = tensors_of(model);
  model.unfreeze_only({"stem"});
  model.train();
  forward(c);
  const auto x = c.inputs->batch("image", {0, 1, 2, 3}).kept.at("pixel_values").values;
  const auto padded = torch::constant_pad_nd(x, {0, 1, 0, 1});
  const auto y = torch::conv2d(padded, parameters.at("efficientnet.embeddings.convolution.weight"), {}, 2);
  const auto after = tensors_of(model);
  EXPECT_LE(relative_difference(after.at("efficientnet.embeddings.batchnorm.running_mean"), 0.01 * y.mean({0, 2, 3})),
            1e-4);
  EXPECT_LE(relative_difference(after.at("efficientnet.embeddings.batchnorm.running_var"),
                                0.99 + 0.01 * y.var(c10::IntArrayRef{0, 2, 3}, /*unbiased=*/true)),
            1e-4);
  // timm and torchvision: 0.1 for the batch; torchvision's B5 to B7, which come from TensorFlow, 0.01.
  for (const auto* name : {"efficientnet-timm-b0", "efficientnet-torchvision"}) {
    const auto source = Source::open(fixture(std::string("parity/") + name + "/model"));
    const auto loaded = load(source, {"classification", 3}, 1);
    const std::string stem = std::string(name) == "efficientnet-torchvision" ? "features.0.1" : "bn1";
    const auto before = tensors_of(*loaded.model);
    loaded.model->unfreeze_only({"stem"});
    loaded.model->train();
    const torch::NoGradGuard no_grad;
    Activations images;
    images.kept["pixel_values"] = {torch::randn({4, 3, 32, 32}), {1, 1, 1, 1}};
    const auto weight =
        before.at(std::string(name) == "efficientnet-torchvision" ? "features.0.0.weight" : "conv_stem.weight");
    const auto mean = torch::conv2d(images.kept.at("pixel_values").values, weight, {}, 2, 1).mean({0, 2, 3});
    loaded.model->forward("image", 0, 1, images, {});
    EXPECT_LE(relative_difference(tensors_of(*loaded.model).at(stem + ".running_mean"),
                                  0.9 * before.at(stem + ".running_mean") + 0.1 * mean),
              1e-4)
        << name;
  }
}

TEST(DropPath, LeavesABranchOutForAnExampleAsAWhole) {
  torch::manual_seed(4);
  const auto x = torch::randn({40 * 3, 5}) + 3;
  const auto y = nn::drop_path(x, 40, 0.25, true).view({40, 3, 5});
  int left_out = 0;
  for (int64_t i = 0; i < 40; ++i) {
    const bool zero = y[i].eq(0).all().item<bool>();
    left_out += zero;
    EXPECT_TRUE(zero || torch::allclose(y[i], x.view({40, 3, 5})[i] / 0.75)) << i;
  }
  EXPECT_GT(left_out, 2);
  EXPECT_LT(left_out, 25);
  EXPECT_TRUE(nn::drop_path(x, 40, 0.25, false).equal(x));
}

TEST(DropPath, GrowsWithDepthWhereItsCodeSaysSo) {
  auto source = Source::open(fixture("parity/vit-timm-token/model"));
  source.config["model_args"]["drop_path_rate"] = 0.3;
  const auto rates = [](const std::shared_ptr<Model>& model) {
    return dynamic_cast<const VisionTransformer&>(*model).options.drop_path;
  };
  EXPECT_EQ(rates(source.architecture->create(source.config, {"features"})), (std::vector<double>{0, 0.3}));
  const Json dinov2{{"model_type", "dinov2"}, {"hidden_size", 16}, {"num_attention_heads", 2},
                    {"num_hidden_layers", 3}, {"image_size", 28},  {"drop_path_rate", 0.2}};
  EXPECT_EQ(rates(find_architecture(dinov2).create(dinov2, {"features"})), (std::vector<double>{0.2, 0.2, 0.2}));
  // In training an example passes a layer's branches or does not; in evaluation it always does.
  const auto model = source.architecture->create(source.config, {"features"});
  model->unfreeze_only(model->all_groups());
  const torch::NoGradGuard no_grad;
  Activations images;
  images.kept["pixel_values"] = {torch::randn({1, 3, 32, 32}).expand({16, -1, -1, -1}), std::vector<int64_t>(16, 1)};
  const auto first_tokens = [&](bool training, int64_t blocks) {
    model->train(training);
    torch::manual_seed(2);
    return model->forward("image", 0, blocks, images, {}).hidden.values.view({16, -1, 32}).select(1, 0);
  };
  const auto differ = [](const Tensor& rows) { return (rows - rows[0]).abs().max().item<double>() > 1e-4; };
  EXPECT_FALSE(differ(first_tokens(true, 2)));  // the first layer has the rate 0
  EXPECT_TRUE(differ(first_tokens(true, 3)));
  EXPECT_FALSE(differ(first_tokens(false, 3)));
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
