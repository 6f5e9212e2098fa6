// softmax(Q K^T scale) V (Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, sec. 3.2.1), with dropout on the weights.
#pragma once

#include <torch/types.h>

#include <optional>

namespace graft::nn {

struct DotProductOptions {
  double dropout = 0;                // > 0 in training only
  bool causal = false;               // without a mask
  std::optional<double> scale = {};  // 1 / sqrt(D) when absent
};

/// query (b, H, Tq, D), key and value (b, H, T, D), `mask` (b or 1, H or 1, Tq, T): where true a key is seen, or what is
/// added to the products, or undefined -> (b, H, Tq, D). Every query sees a key.
///
/// at::scaled_dot_product_attention, but for two cases on the CPU, where its steps are taken one by one: with dropout, for
/// which there is no kernel, and for short examples, for which the kernel, made to save the T x T weights of long ones, takes
/// up to twice the time of the steps, in bfloat16 up to ten times (forward and backward).
torch::Tensor scaled_dot_product(const torch::Tensor& query, const torch::Tensor& key, const torch::Tensor& value,
                                 const torch::Tensor& mask, const DotProductOptions& options);

}  // namespace graft::nn
