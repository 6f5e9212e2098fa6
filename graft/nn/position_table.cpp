#include "graft/nn/position_table.h"

#include <cmath>

#include "graft/core/error.h"

namespace graft::nn {
namespace {

constexpr double kOffset = 0.1;  // of DINO's factor, against rounding: facebookresearch/dino, vision_transformer.py

}  // namespace

torch::Tensor resized_positions(const torch::Tensor& table, int64_t prefix, int64_t height, int64_t width,
                                PositionRule rule) {
  const auto rows = table.size(1) - prefix, C = table.size(2);
  const auto side = static_cast<int64_t>(std::llround(std::sqrt(static_cast<double>(rows))));
  if (rows == height * width && (height == width || side * side != rows)) return table[0];
  GRAFT_CHECK(model, side * side == rows,
              "the position table has {} rows of patches, which is no square grid; give images of {} patches.", rows,
              rows);
  const auto grid = table.narrow(1, prefix, rows).view({1, side, side, C}).permute({0, 3, 1, 2});
  const std::vector<int64_t> size{height, width};
  const auto factor = [&](int64_t wanted) {
    return (static_cast<double>(wanted) + kOffset) / static_cast<double>(side);
  };
  torch::Tensor resized;
  switch (rule) {
    case PositionRule::bicubic:
      resized = at::upsample_bicubic2d(grid, size, /*align_corners=*/false);
      break;
    case PositionRule::bicubic_antialiased:
      resized = at::_upsample_bicubic2d_aa(grid, size, /*align_corners=*/false);
      break;
    case PositionRule::bicubic_offset:
      resized = at::upsample_bicubic2d(grid, size, /*align_corners=*/false, factor(height), factor(width));
      break;
    case PositionRule::bicubic_aligned:
      resized = at::upsample_bicubic2d(grid, size, /*align_corners=*/true);
      break;
  }
  const auto patches = resized.permute({0, 2, 3, 1}).reshape({height * width, C});
  return torch::cat({table[0].narrow(0, 0, prefix), patches});
}

torch::Tensor sincos_positions(int64_t height, int64_t width, int64_t channels, int64_t prefix) {
  GRAFT_ASSERT(channels % 4 == 0);
  const auto exact = torch::TensorOptions().dtype(torch::kFloat64);
  const auto quarter = channels / 4;
  const auto frequency = torch::pow(10000.0, -torch::arange(quarter, exact) / static_cast<double>(quarter));
  const auto waves = [&](const torch::Tensor& place) {
    const auto angle = torch::outer(place, frequency);
    return torch::cat({angle.sin(), angle.cos()}, 1);
  };
  const auto row = torch::arange(height, exact).repeat_interleave(width),
             column = torch::arange(width, exact).repeat({height});
  const auto patches = torch::cat({waves(column), waves(row)}, 1);
  return torch::cat({torch::zeros({prefix, channels}, exact), patches}).to(torch::kFloat32).unsqueeze(0);
}

}  // namespace graft::nn
