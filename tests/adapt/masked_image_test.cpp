// Masked autoencoding: what is seen, what is to be given back, and the settings of its paper.
#include "graft/adapt/masked_image.h"

#include <gtest/gtest.h>

#include "graft/models/architectures.h"
#include "graft/train/schedule.h"
#include "tests/fixtures.h"

namespace graft::adapt {
namespace {

using models::Tensor;

/// A ViT of two layers for images of 16 x 16 with patches of 4, and a decoder.
std::shared_ptr<models::Model> tiny_model(const Json& more = Json::object()) {
  Json config{{"model_type", "vit"},
              {"hidden_size", 16},
              {"num_hidden_layers", 2},
              {"num_attention_heads", 2},
              {"intermediate_size", 24},
              {"image_size", 16},
              {"patch_size", 4},
              {"decoder_hidden_size", 8},
              {"decoder_num_hidden_layers", 1},
              {"decoder_num_attention_heads", 2},
              {"decoder_intermediate_size", 16},
              {"norm_pix_loss", true}};
  config.update(more);
  torch::manual_seed(5);
  return models::find_architecture(config).create(config, {"masked_image"});
}

struct Pixels final : features::Inputs {
  explicit Pixels(int64_t count) : values(torch::randn({count, 3, 16, 16})) {}
  int64_t size() const override { return values.size(0); }
  int64_t length(int64_t) const override { return 1; }
  models::Activations batch(const std::string&, const std::vector<int64_t>& examples) const override {
    models::Activations x;
    x.kept["pixel_values"] = {values.index_select(0, torch::tensor(examples)),
                              std::vector<int64_t>(examples.size(), 1)};
    return x;
  }
  std::string hash() const override { return "pixels"; }
  Tensor values;
};

models::Outputs outputs_of(models::Model& model, const MaskedImages& stream, const std::vector<int64_t>& examples,
                           uint64_t epoch) {
  return train::forward_behind(model, stream.enter(examples, epoch), std::nullopt);
}

TEST(SinCosPositions, AreThoseOfThePapersCode) {
  const auto table = nn::sincos_positions(3, 4, 8, 1)[0];  // (1 + 12, 8)
  EXPECT_EQ(table.size(0), 13);
  EXPECT_TRUE(table[0].equal(torch::zeros({8})));
  const auto patch = table[1 + 2 * 4 + 3];  // row 2, column 3; the column comes first
  const double slow = 0.01;                 // 10000^(-1/2)
  const std::vector<double> expected{std::sin(3), std::sin(3 * slow), std::cos(3), std::cos(3 * slow),
                                     std::sin(2), std::sin(2 * slow), std::cos(2), std::cos(2 * slow)};
  for (int64_t i = 0; i < 8; ++i) EXPECT_NEAR(patch[i].item<double>(), expected[i], 1e-6) << i;
}

TEST(Patches, HaveTheirChannelsFastestAndGoBack) {
  const auto image = torch::arange(2 * 3 * 4 * 6, torch::kFloat32).view({2, 3, 4, 6});
  const auto patches = models::patchified(image, 2);
  EXPECT_EQ(patches.sizes(), (std::vector<int64_t>{2, 6, 12}));
  EXPECT_EQ(patches[0][1][0].item<float>(), image[0][0][0][2].item<float>());
  EXPECT_EQ(patches[0][1][1].item<float>(), image[0][1][0][2].item<float>());
  EXPECT_EQ(patches[0][1][3].item<float>(), image[0][0][0][3].item<float>());
  EXPECT_TRUE(models::unpatchified(patches, 2, 2).equal(image));
  EXPECT_EQ(models::patchified(image, 4).size(1), 1);  // an incomplete patch is left out
}

TEST(MaskedImages, AMaskIsAFunctionOfExampleAndEpoch) {
  const torch::NoGradGuard no_grad;
  const auto model = tiny_model();
  model->eval();
  const Pixels images(5);
  const MaskedImages stream(*model, images, 1);
  const auto together = outputs_of(*model, stream, {0, 1, 2}, 3), alone = outputs_of(*model, stream, {2}, 3);
  EXPECT_TRUE(together.at("mask")[2].equal(alone.at("mask")[0]));
  EXPECT_FALSE(together.at("mask")[0].equal(together.at("mask")[1]));
  EXPECT_FALSE(outputs_of(*model, stream, {2}, 4).at("mask").equal(alone.at("mask")));
  EXPECT_FALSE(outputs_of(*model, MaskedImages(*model, images, 2), {2}, 3).at("mask").equal(alone.at("mask")));
  EXPECT_TRUE(together.at("mask").sum(1).eq(12).all().item<bool>());  // 4 of 16 patches are seen
  EXPECT_EQ(stream.weight({0, 1, 2}, 3), 36);
  EXPECT_NEAR(stream.loss_sum(together, {0, 1, 2}, 3).item<double>(), 36 * together.at("loss").item<double>(), 1e-3);
}

TEST(MaskedImages, WhatIsNotSeenDoesNotReachTheEncoder) {
  const torch::NoGradGuard no_grad;
  const auto model = tiny_model();
  model->eval();
  Pixels images(1);
  const MaskedImages stream(*model, images, 1);
  const auto before = outputs_of(*model, stream, {0}, 0);
  const auto& head = dynamic_cast<const models::MaskedImageHead&>(*model->head);
  EXPECT_TRUE(head.seen(before, images.values).ne(0).sum().item<int64_t>() == 4 * 4 * 4 * 3);
  const auto unseen = models::unpatchified(before.at("mask").unsqueeze(-1).expand({1, 16, 48}), 4, 4);
  images.values = images.values + 10 * unseen;
  const auto after = outputs_of(*model, stream, {0}, 0);
  EXPECT_TRUE(after.at("logits").equal(before.at("logits")));
  EXPECT_FALSE(after.at("ids_restore").ne(before.at("ids_restore")).any().item<bool>());
  // A reconstruction leaves what was seen.
  const auto rebuilt = head.reconstruction(after, images.values);
  EXPECT_TRUE((rebuilt * (1 - unseen)).allclose(images.values * (1 - unseen)));
  EXPECT_FALSE(rebuilt.allclose(images.values));
}

TEST(MaskedImages, AnEncoderWithRegistersAndWithoutAClassTokenIsAdapted) {
  const torch::NoGradGuard no_grad;
  const auto model = tiny_model({{"layout", "timm"},
                                 {"num_heads", 2},
                                 {"vit",
                                  {{"embed_dim", 16},
                                   {"depth", 2},
                                   {"intermediate", 24},
                                   {"patch_size", 4},
                                   {"image_size", 16},
                                   {"reg_tokens", 3},
                                   {"class_token", false},
                                   {"table_prefix", 0}}}});
  model->eval();
  Pixels images(2);
  const MaskedImages stream(*model, images, 1);
  const auto outputs = outputs_of(*model, stream, {0, 1}, 0);
  EXPECT_EQ(outputs.at("logits").sizes(), (std::vector<int64_t>{2, 16, 48}));
  EXPECT_TRUE(outputs.at("mask").sum(1).eq(12).all().item<bool>());
  // Registers stay in sight of the encoder, the decoder does not get them: 4 seen patches and 12 masks.
  EXPECT_EQ(stream.enter({0}, 0).at("image").hidden.lengths, (std::vector<int64_t>{7}));  // nothing trains: the end
  EXPECT_EQ(model->buffers_by_key()["decoder.decoder_pos_embed"].size(1), 16);
  // What is not seen does not reach the encoder.
  const auto unseen = models::unpatchified(outputs.at("mask").unsqueeze(-1).expand({2, 16, 48}), 4, 4);
  images.values = images.values + 10 * unseen;
  EXPECT_TRUE(outputs_of(*model, stream, {0, 1}, 0).at("logits").equal(outputs.at("logits")));
}

TEST(MaskedImages, Dinov2IsAdaptedTooAndItsMaskTokenStays) {
  const torch::NoGradGuard no_grad;
  const auto model = tiny_model({{"model_type", "dinov2"}, {"mlp_ratio", 2}});
  model->eval();
  const Pixels images(3);
  const MaskedImages stream(*model, images, 1);
  const auto outputs = outputs_of(*model, stream, {0, 1, 2}, 0);
  EXPECT_EQ(outputs.at("logits").sizes(), (std::vector<int64_t>{3, 16, 48}));
  EXPECT_TRUE(model->buffers_by_key().contains("dinov2.embeddings.mask_token"));
  EXPECT_EQ(model->group_of("decoder.decoder_embed.weight"), "head");
}

TEST(MaskedImages, TargetsAreNormalisedWithinAPatch) {
  const torch::NoGradGuard no_grad;
  const auto model = tiny_model();
  model->eval();
  for (auto& item : model->head->named_parameters())
    if (item.key().starts_with("decoder.decoder_pred")) item.value().zero_();
  Pixels images(4);
  images.values = 7 + 3 * images.values;
  const MaskedImages stream(*model, images, 1);
  // Against 0 the squares of a patch with variance 1 (over its values less one) are left.
  EXPECT_NEAR(outputs_of(*model, stream, {0, 1, 2, 3}, 0).at("loss").item<double>(), 47.0 / 48.0, 1e-4);
}

TEST(MaskedImages, AFreshDecoderHasFixedPositionsAndXavierWeights) {
  const auto model = tiny_model();
  const auto positions = model->buffers_by_key()["decoder.decoder_pos_embed"];
  EXPECT_TRUE(positions.equal(nn::sincos_positions(4, 4, 8, 1)));
  const auto weight = model->parameters_by_key()["decoder.decoder_embed.weight"];  // (8, 16)
  const double bound = std::sqrt(6.0 / 24);
  EXPECT_LE(weight.abs().max().item<double>(), bound);
  EXPECT_GE(weight.abs().max().item<double>(), 0.9 * bound);
}

TEST(MaskedImages, SentencesForWhatCannotBe) {
  EXPECT_NE(tests::message_of([] {
              tiny_model({{"decoder_hidden_size", 10}});
            }).find("the decoder's width 10"),
            std::string::npos);
  const auto model = tiny_model({{"mask_ratio", 0.99}});
  const Pixels images(1);
  EXPECT_NE(tests::message_of([&] { MaskedImages(*model, images, 1); }).find("nothing is left to see"),
            std::string::npos);
}

TEST(PaperSettings, RateByBatchSecondMomentDecayAndCosine) {
  AdaptOptions options;
  options.batch_size = 64;
  train::PhasePlan plan;
  plan.learning_rates = {{"head", 1}, {"layer 0", 1}};
  use_paper_settings(options, false, plan);
  EXPECT_DOUBLE_EQ(plan.learning_rates.at("layer 0"), 1.5e-4 / 4);
  EXPECT_EQ(plan.adamw.beta2, 0.95);
  EXPECT_EQ(plan.weight_decay, 0.05);
  EXPECT_TRUE(plan.cosine);
  EXPECT_DOUBLE_EQ(train::cosine_warmup_decay(0.025, 0.05), 0.5);
  EXPECT_DOUBLE_EQ(train::cosine_warmup_decay(0.05, 0.05), 1);
  EXPECT_NEAR(train::cosine_warmup_decay(0.525, 0.05), 0.5, 1e-12);
  EXPECT_NEAR(train::cosine_warmup_decay(1, 0.05), 0, 1e-12);
}

}  // namespace
}  // namespace graft::adapt
