// Dropout (Srivastava et al. 2014, https://jmlr.org/papers/v15/srivastava14a.html).
#pragma once

#include <torch/types.h>

namespace graft::nn {

/// x of any shape and floating type -> the same: each value 0 with probability p, else divided by the share that stays;
/// x itself when not `training` or p is 0.
///
/// Of CUDA torch::dropout. libtorch's own on the CPU draws 64 random bits for each value, one value after another, where
/// the processor is not Intel's: a tenth of the time of a BERT's step. Here four values share them, so p is met to 2^-17,
/// and the values that stay are divided by the share that is really meant.
torch::Tensor dropout(const torch::Tensor& x, double p, bool training);

}  // namespace graft::nn
