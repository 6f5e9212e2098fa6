// Masked autoencoding: a small decoder gives back the pixels of the patches that the encoder did not see. It is the head
// of masked_image and belongs to pre-training only.
// Paper:   He et al. 2022, https://arxiv.org/abs/2111.06377
// Weights: transformers `vit_mae` (decoder.*), also as version 5 names the layers; the authors' (decoder_*).
// Shapes:  B images of L patches, K of them seen, p side of a patch, P = p * p * channels, D width of the decoder.
#pragma once

#include "graft/models/vision_transformer.h"

namespace graft::models {

/// What config.json says of the objective and its decoder.
struct MaskedImageConfig {
  int64_t decoder_hidden_size = 512, decoder_num_hidden_layers = 8, decoder_num_attention_heads = 16,
          decoder_intermediate_size = 2048;
  double mask_ratio = 0.75;
  bool norm_pix_loss = false;

  template <class Visitor>
  void visit(Visitor&& field) {
    field("decoder_hidden_size", decoder_hidden_size, "D, a multiple of 4");
    field("decoder_num_hidden_layers", decoder_num_hidden_layers, "layers of the decoder");
    field("decoder_num_attention_heads", decoder_num_attention_heads, "heads of the decoder");
    field("decoder_intermediate_size", decoder_intermediate_size, "inner width of the decoder");
    field("mask_ratio", mask_ratio, "part of the patches that the encoder does not see");
    field("norm_pix_loss", norm_pix_loss, "targets have mean 0 and variance 1 within each patch");
  }
};

/// Keys of a decoder.
struct DecoderNames {
  std::string embed, mask_token, positions, layer, norm, predict;
  VisionNames of_layer;

  static DecoderNames transformers();
  static DecoderNames authors();  // facebookresearch/mae
};

struct MaskedImageHead : Head {
  /// `encoder`: what the chain ends with. Fresh: linear layers Xavier-uniform, positions sin-cos, as in the paper's code.
  /// Throws Kind::model for widths that do not fit.
  MaskedImageHead(const MaskedImageConfig& config, const VisionOptions& encoder,
                  const DecoderNames& names = DecoderNames::transformers());

  Reads reads() const override { return {Reads::Where::all}; }
  std::vector<std::string> reads_slots() const override { return {"ids_restore", "pixel_values"}; }
  /// logits (B, L, P); mask (B, L), 1 where a patch was not seen; ids_restore (B, L); loss, the mean over unseen patches.
  Outputs forward(const std::map<std::string, Activations>& ends) override;

  /// The images with what was not seen as predicted, in pixel values (B, channels, H, W).
  Tensor reconstruction(const Outputs& outputs, const Tensor& pixels) const;
  /// The images with what was not seen left at 0, which is the mean of pre-training's pixels.
  Tensor seen(const Outputs& outputs, const Tensor& pixels) const;
  /// Patches of an image of this size.
  int64_t patches(const Tensor& pixels) const;

  MaskedImageConfig config;
  VisionOptions encoder;

 private:
  Tensor positions_for(int64_t height, int64_t width) const;

  nn::Linear embed{nullptr}, predict{nullptr};
  nn::LayerNorm norm{nullptr};
  std::vector<VisionLayer> layers;
  Tensor mask_token, positions;  // (1, 1, D), (1, L + class token, D)
};

/// Gives a model the head of masked_image, and has it mask patches, as `config` says (MaskedImageConfig).
void pretrain(VisionTransformer& model, const Json& config, const DecoderNames& names);

/// pixels (B, channels, H, W) -> (B, L, P): rows of a patch, columns, channels fastest. Incomplete patches are left out.
Tensor patchified(const Tensor& pixels, int64_t patch_size);
/// The inverse, for a grid of `height` rows of patches.
Tensor unpatchified(const Tensor& patches, int64_t patch_size, int64_t height);

}  // namespace graft::models
