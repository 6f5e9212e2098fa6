// Layers whose weights are kept in bfloat16 and computed with in float32: each product widens its weight for itself, and
// once more for the gradient, so that no wide copy outlives the layer.
// Shapes:  N rows.
#pragma once

#include <torch/types.h>

namespace graft::nn {

/// True where `weight` is kept in bfloat16, `x` is float32, and nothing else (autocast) brings both to one type.
bool must_widen(const torch::Tensor& x, const torch::Tensor& weight);

/// x (..., in), weight (out, in) of another type, bias (out) of x's type or undefined -> (..., out) of x's type.
/// The gradient of the weight is computed in x's type and rounded once.
torch::Tensor widened_linear(const torch::Tensor& x, const torch::Tensor& weight, const torch::Tensor& bias);

/// weight (rows, width) in bfloat16, ids (N) -> (N, width) float32. Gradients of a row that is looked up several times are
/// summed in float32.
torch::Tensor widened_embedding(const torch::Tensor& weight, const torch::Tensor& ids, int64_t padding_id);

}  // namespace graft::nn
