// Learned position tables for another grid of patches. Each ecosystem has its own rule, and they give other numbers.
#pragma once

#include <torch/types.h>

namespace graft::nn {

enum class PositionRule {
  bicubic,              // transformers: to a size, a = -0.75, no antialiasing
  bicubic_antialiased,  // timm
};

/// table (1, prefix + M * M, C): `prefix` rows of special tokens, then a square grid -> (prefix + height * width, C).
/// Throws Kind::model when the grid is not square and another one is wanted.
torch::Tensor resized_positions(const torch::Tensor& table, int64_t prefix, int64_t height, int64_t width,
                                PositionRule rule);

}  // namespace graft::nn
