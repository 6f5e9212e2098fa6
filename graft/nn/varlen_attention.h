// Attention over examples of unequal length in one kernel, where the device has one: FlashAttention for half precision,
// the memory-efficient kernel for float32, both of CUDA.
// Papers:  Dao et al. 2022, https://arxiv.org/abs/2205.14135; Rabe and Staats 2021, https://arxiv.org/abs/2112.05682
#pragma once

#include <torch/types.h>

#include <optional>
#include <vector>

namespace graft::nn {

struct VarlenOptions {
  bool causal = false;               // as many queries as keys in each example
  int64_t window = 0;                // causal only: a token sees this many, itself counted; 0: all
  double dropout = 0;                // on the attention weights
  std::optional<double> scale = {};  // 1 / sqrt(D) when absent
};

/// query (M, H, D), key and value (N, K, D), K a divisor of H -> (M, H, D); nothing where no kernel fits the device, the
/// type or the width of a head.
std::optional<torch::Tensor> varlen_attention(const torch::Tensor& query, const torch::Tensor& key,
                                              const torch::Tensor& value, const std::vector<int64_t>& query_lengths,
                                              const std::vector<int64_t>& lengths, const VarlenOptions& options);

}  // namespace graft::nn
