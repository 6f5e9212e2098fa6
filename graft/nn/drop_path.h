// Stochastic depth: in training a residual branch is left out for an example as a whole.
// Paper:   Huang et al. 2016, https://arxiv.org/abs/1603.09382
#pragma once

#include <torch/types.h>

namespace graft::nn {

/// x: rows of `examples` examples with equally many rows each, (examples * rows, ...). Scaled by 1 / (1 - rate) where kept.
/// Draws from the default generator, which the training step seeds.
torch::Tensor drop_path(const torch::Tensor& x, int64_t examples, double rate, bool training);

}  // namespace graft::nn
