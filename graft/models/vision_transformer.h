// The chain that ViT, DINOv2 and the MAE encoder share: patch embeddings, pre-norm layers, a final norm.
// Paper:   Dosovitskiy et al. 2021, https://arxiv.org/abs/2010.11929
// Shapes:  B images, T tokens of an image (special ones first), N = B * T, C channels, F inner channels.
#pragma once

#include <optional>

#include "graft/models/model.h"
#include "graft/nn/activation.h"
#include "graft/nn/convolution.h"
#include "graft/nn/position_table.h"

namespace graft::models {

/// Keys of a checkpoint. Those of a layer stand behind `layer` + its number + ".".
struct VisionNames {
  std::vector<std::string> embeddings;  // prefixes of the group
  std::string patches, class_token, positions, registers, mask_token, layer, norm;
  std::string norm1, query, key, value, qkv, attention_output, norm2, inner, outer, scale1, scale2;

  /// transformers' names below `prefix` ("vit"); `dinov2` has its own inside a layer.
  static VisionNames transformers(const std::string& prefix, bool dinov2);
  static VisionNames timm();  // the authors of MAE, DINO and DINOv2 have them too
  static VisionNames torchvision();
};

struct VisionOptions {
  int64_t hidden_size = 768, num_layers = 12, num_heads = 12, intermediate_size = 3072;
  int64_t image_size = 224, patch_size = 16, num_channels = 3;
  std::string hidden_act = "gelu";
  double layer_norm_eps = 1e-12;
  bool qkv_bias = true;
  bool has_class_token = true;
  int64_t num_registers = 0;
  /// Special tokens that the position table has rows for; the others are put in behind the addition.
  int64_t table_prefix = 1;
  nn::PositionRule rule = nn::PositionRule::bicubic;
  bool positions_train = true;
  bool has_mask_token = false;  // in the file, used by pre-training only
  bool final_norm = true;
  bool layer_scale = false, swiglu = false;
  double hidden_dropout = 0, attention_dropout = 0, position_dropout = 0;
  std::vector<double> drop_path;  // of each layer; empty for none

  int64_t special_tokens() const { return (has_class_token ? 1 : 0) + num_registers; }
};

/// One pre-norm layer. Its parts are registered below the model under the checkpoint's names.
struct VisionLayer {
  VisionLayer(torch::nn::Module& root, const std::string& prefix, const VisionNames& names,
              const VisionOptions& options, double drop_path);
  /// x (B * T, C)
  Tensor forward(const Tensor& x, const std::vector<int64_t>& lengths);

  bool is_training() const { return module->is_training(); }
  torch::nn::Module* module;  // for its mode
  nn::LayerNorm norm1{nullptr}, norm2{nullptr};
  nn::Linear query{nullptr}, key{nullptr}, value{nullptr}, qkv{nullptr}, output{nullptr}, inner{nullptr},
      outer{nullptr};
  Tensor scale1, scale2;  // (C)
  nn::Activation act;
  bool swiglu;
  int64_t num_heads;
  double hidden_dropout, attention_dropout, drop_path;
};

struct VisionTransformer : Model {
  /// Chain "image" with the slot "pixel_values" (B, channels, height, width) float32.
  /// Throws Kind::model for a configuration that cannot be computed.
  VisionTransformer(VisionNames names, VisionOptions options);

  /// Where a batch has the slot "noise" (B, L), the patches with the largest values are left out, so many that `ratio` of
  /// the L are missing; the slot "ids_restore" (B, L) then says where each patch stands in the order of the noise.
  void mask_patches(double ratio);

  VisionNames names;
  VisionOptions options;

  /// (B, channels, height, width) -> tokens (B, T, C) with positions, and the grid of patches.
  Tensor embed(const Tensor& pixels);
  Tensor encode(const Tensor& tokens);  // all layers and the norm on (B, T, C)

 protected:
  Activations forward_block(const Chain& chain, int64_t index, Activations x, const ReadIndex* needed) override;

  /// tokens (B, T, C) with positions -> those that are seen.
  Tensor leave_out(const Tensor& tokens, const Rows& noise, Activations& embedded) const;

  std::optional<double> mask_ratio;
  nn::Conv2d patches{nullptr};
  Tensor class_token, positions, registers, mask_token;
  std::vector<VisionLayer> layers;
  nn::LayerNorm norm{nullptr};
};

/// How many of `patches` an encoder sees, rounded down as the reference does.
int64_t seen_patches(int64_t patches, double mask_ratio);

/// From the config.json of a ViT as transformers writes it.
VisionOptions transformers_vit_options(const Json& config);

}  // namespace graft::models
