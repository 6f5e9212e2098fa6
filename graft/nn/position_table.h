// Learned position tables for another grid of patches. Each ecosystem has its own rule, and they give other numbers.
#pragma once

#include <torch/types.h>

namespace graft::nn {

enum class PositionRule {
  bicubic,              // transformers: to a size, a = -0.75, no antialiasing
  bicubic_antialiased,  // timm, and DINOv2's code for models with registers
  bicubic_offset,   // DINO's and DINOv2's code: by the factor (n + 0.1) / M, which also sets where samples are taken
  bicubic_aligned,  // torchvision: the corners of both grids lie on each other
};

/// table (1, prefix + M * M, C): `prefix` rows of special tokens, then a square grid -> (prefix + height * width, C).
/// Throws Kind::model when the grid is not square and another one is wanted.
torch::Tensor resized_positions(const torch::Tensor& table, int64_t prefix, int64_t height, int64_t width,
                                PositionRule rule);

/// The fixed table of masked autoencoders (He et al. 2022): `prefix` rows of 0, then for each patch the sines and cosines of
/// its column, then of its row, with wave lengths from 2 pi to 10000 * 2 pi -> (1, prefix + height * width, channels).
/// `channels` must be a multiple of 4.
torch::Tensor sincos_positions(int64_t height, int64_t width, int64_t channels, int64_t prefix);

}  // namespace graft::nn
