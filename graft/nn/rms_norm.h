// Root-mean-square norm: no mean, no bias.
// Paper:  Zhang and Sennrich 2019, https://arxiv.org/abs/1910.07467
#pragma once

#include "graft/nn/layers.h"

namespace graft::nn {

/// x / sqrt(mean(x^2) + eps), computed in float32 and cast back, then times the weight. Fresh: ones.
struct RmsNormImpl : Attachable {
  RmsNormImpl(int64_t width, double eps);
  Tensor forward(const Tensor& x);  // (..., width)
  Tensor weight;                    // (width)
  double eps;
};
TORCH_MODULE(RmsNorm);

}  // namespace graft::nn
