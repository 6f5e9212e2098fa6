// The attention that LLaMA and StarCoder2 share: grouped queries, turned by their positions.
// Weights: transformers' keys q_proj, k_proj, v_proj, o_proj.
// Shapes:  N tokens of all examples, M tokens that are needed, C channels, H query heads, K heads of keys, D head width.
#pragma once

#include "graft/nn/causal_attention.h"
#include "graft/nn/layers.h"
#include "graft/nn/rotary.h"

namespace graft::nn {

struct RotaryAttentionImpl : torch::nn::Module {
  RotaryAttentionImpl(int64_t width, int64_t head_width, bool with_bias, const CausalOptions& options);
  /// x (N, C), turned by `rotation` (N, 1, D) -> (M, C).
  Tensor forward(const Tensor& x, const CausalRows& rows, const Rotation& rotation);

  Linear q_proj{nullptr}, k_proj{nullptr}, v_proj{nullptr}, o_proj{nullptr};
  CausalOptions options;
};
TORCH_MODULE(RotaryAttention);

}  // namespace graft::nn
