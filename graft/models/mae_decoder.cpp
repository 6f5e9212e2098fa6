#include "graft/models/mae_decoder.h"

#include <cmath>

#include "graft/core/error.h"
#include "graft/models/config.h"
#include "graft/nn/fresh.h"
#include "graft/nn/levels.h"

namespace graft::models {
namespace {

constexpr double kInitializerRange = 0.02;
constexpr double kEpsilon = 1e-6;  // of the variance of a patch

/// Mean and standard deviation of each patch, (B, L, 1) both.
std::pair<Tensor, Tensor> moments(const Tensor& patches) {
  return {patches.mean(-1, true), (patches.var(-1, /*unbiased=*/true, /*keepdim=*/true) + kEpsilon).sqrt()};
}

VisionOptions decoder_options(const MaskedImageConfig& c, const VisionOptions& encoder) {
  auto o = encoder;
  o.hidden_size = c.decoder_hidden_size;
  o.num_layers = c.decoder_num_hidden_layers;
  o.num_heads = c.decoder_num_attention_heads;
  o.intermediate_size = c.decoder_intermediate_size;
  o.layer_scale = o.swiglu = false;
  o.qkv_bias = true;
  return o;
}

}  // namespace

Tensor patchified(const Tensor& pixels, int64_t p) {
  const auto B = pixels.size(0), C = pixels.size(1), h = pixels.size(2) / p, w = pixels.size(3) / p;
  return pixels.narrow(2, 0, h * p)
      .narrow(3, 0, w * p)
      .reshape({B, C, h, p, w, p})
      .permute({0, 2, 4, 3, 5, 1})
      .reshape({B, h * w, p * p * C});
}

Tensor unpatchified(const Tensor& patches, int64_t p, int64_t height) {
  const auto B = patches.size(0), width = patches.size(1) / height, C = patches.size(2) / (p * p);
  return patches.reshape({B, height, width, p, p, C})
      .permute({0, 5, 1, 3, 2, 4})
      .reshape({B, C, height * p, width * p});
}

DecoderNames DecoderNames::transformers() {
  return {.embed = "decoder.decoder_embed",
          .mask_token = "decoder.mask_token",
          .positions = "decoder.decoder_pos_embed",
          .layer = "decoder.decoder_layers.",
          .norm = "decoder.decoder_norm",
          .predict = "decoder.decoder_pred",
          .of_layer = VisionNames::transformers("", false)};
}

DecoderNames DecoderNames::authors() {
  return {.embed = "decoder_embed",
          .mask_token = "mask_token",
          .positions = "decoder_pos_embed",
          .layer = "decoder_blocks.",
          .norm = "decoder_norm",
          .predict = "decoder_pred",
          .of_layer = VisionNames::timm()};
}

void pretrain(VisionTransformer& model, const Json& json, const DecoderNames& names) {
  const auto config = read_config<MaskedImageConfig>(json);
  model.mask_patches(config.mask_ratio);
  model.head = std::make_shared<MaskedImageHead>(config, model.options, names);
}

MaskedImageHead::MaskedImageHead(const MaskedImageConfig& c, const VisionOptions& encoder, const DecoderNames& names)
    : config(c), encoder(encoder) {
  const auto D = c.decoder_hidden_size, p = encoder.patch_size, side = encoder.image_size / p;
  GRAFT_CHECK(
      model, c.decoder_num_attention_heads > 0 && D % c.decoder_num_attention_heads == 0 && D % 4 == 0,
      "the decoder's width {} is not a multiple of 4 and of its {} attention heads; change decoder_hidden_size in "
      "config.json, or adapt.images.decoder_width in the recipe.",
      D, c.decoder_num_attention_heads);
  embed = nn::place(*this, names.embed, nn::Linear(encoder.hidden_size, D));
  mask_token = nn::place_parameter(*this, names.mask_token, nn::fresh_normal({1, 1, D}, kInitializerRange));
  positions =
      nn::place_buffer(*this, names.positions, nn::sincos_positions(side, side, D, encoder.has_class_token ? 1 : 0));
  const auto options = decoder_options(c, encoder);
  for (int64_t i = 0; i < c.decoder_num_hidden_layers; ++i)
    layers.emplace_back(*this, names.layer + std::to_string(i), names.of_layer, options, 0.0);
  norm = nn::place(*this, names.norm, nn::LayerNorm(D, encoder.layer_norm_eps));
  predict = nn::place(*this, names.predict, nn::Linear(D, p * p * encoder.num_channels));
  for (const auto& item : named_parameters())
    if (item.value().dim() == 2) {
      const auto bound = std::sqrt(6.0 / static_cast<double>(item.value().size(0) + item.value().size(1)));
      nn::draw_fresh(item.value(), [bound](Tensor& weight) { weight.uniform_(-bound, bound); });
    }
}

int64_t MaskedImageHead::patches(const Tensor& pixels) const {
  return pixels.size(2) / encoder.patch_size * (pixels.size(3) / encoder.patch_size);
}

Tensor MaskedImageHead::positions_for(int64_t height, int64_t width) const {
  const auto side = encoder.image_size / encoder.patch_size;
  if (height == side && width == side) return positions;
  return nn::sincos_positions(height, width, config.decoder_hidden_size, encoder.has_class_token ? 1 : 0)
      .to(positions.device());
}

Outputs MaskedImageHead::forward(const std::map<std::string, Activations>& ends) {
  const auto& end = ends.at("image");
  const auto found = end.kept.find("ids_restore");
  GRAFT_CHECK(data, found != end.kept.end(),
              "noise is missing among the inputs; masked autoencoding wants float32 [B, patches]: the patches with the "
              "smallest values are seen.");
  const auto& restore = found->second.values;
  const auto& pixels = end.kept.at("pixel_values").values;
  const auto B = static_cast<int64_t>(end.hidden.lengths.size()), L = restore.size(1), D = config.decoder_hidden_size;
  const auto tokens = embed(end.hidden.values).view({B, -1, D});
  const auto S = encoder.special_tokens(), K = tokens.size(1) - S;
  // Seen patches, then masks, put back into the order of the image.
  auto x = torch::cat({tokens.narrow(1, S, K), mask_token.expand({B, L - K, D})}, 1)
               .gather(1, restore.unsqueeze(-1).expand({B, L, D}));
  const int64_t first = encoder.has_class_token ? 1 : 0;
  if (first == 1) x = torch::cat({tokens.narrow(1, 0, 1), x}, 1);
  x = x + positions_for(pixels.size(2) / encoder.patch_size, pixels.size(3) / encoder.patch_size);
  x = x.reshape({-1, D});
  const std::vector<int64_t> lengths(B, first + L);
  for (auto& layer : layers) x = layer.forward(x, lengths);
  const auto logits = predict(norm(x)).view({B, first + L, -1}).narrow(1, first, L);

  auto target = patchified(pixels, encoder.patch_size);
  if (config.norm_pix_loss) {
    const auto [mean, deviation] = moments(target);
    target = (target - mean) / deviation;
  }
  const auto mask = (restore >= K).to(logits.scalar_type());
  const auto loss = ((logits - target).square().mean(-1) * mask).sum() / mask.sum();
  return {{"logits", logits}, {"mask", mask}, {"ids_restore", restore}, {"loss", loss}};
}

Tensor MaskedImageHead::reconstruction(const Outputs& outputs, const Tensor& pixels) const {
  const auto target = patchified(pixels, encoder.patch_size);
  auto predicted = outputs.at("logits");
  if (config.norm_pix_loss) {
    const auto [mean, deviation] = moments(target);
    predicted = predicted * deviation + mean;
  }
  const auto unseen = outputs.at("mask").unsqueeze(-1) > 0;
  return unpatchified(torch::where(unseen, predicted, target), encoder.patch_size, pixels.size(2) / encoder.patch_size);
}

Tensor MaskedImageHead::seen(const Outputs& outputs, const Tensor& pixels) const {
  const auto visible = patchified(pixels, encoder.patch_size) * (1 - outputs.at("mask").unsqueeze(-1));
  return unpatchified(visible, encoder.patch_size, pixels.size(2) / encoder.patch_size);
}

}  // namespace graft::models
