// x W^T + b by the faster of the libraries that libtorch carries.
#pragma once

#include <torch/types.h>

namespace graft::nn {

/// torch::linear: x (..., in), weight (out, in), bias (out) or undefined -> (..., out), with gradients.
///
/// libtorch multiplies float32 matrices by MKL, which keeps to AVX2 on processors that are not Intel's. Where those have
/// AVX-512, oneDNN is twice as fast, so large products go there. The choice depends on the kind of processor and the
/// shapes alone; autocast and other devices are left to torch::linear.
torch::Tensor linear(const torch::Tensor& x, const torch::Tensor& weight, const torch::Tensor& bias);

/// Whether this processor's large products go to oneDNN.
bool multiplies_by_onednn();

}  // namespace graft::nn
