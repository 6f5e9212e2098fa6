// Scaled dot-product attention over examples of unequal length, without padded tokens.
// Paper:   Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, eq. 1.
// Shapes:  B examples, N = sum of lengths, M = sum of query lengths, H heads, D width of a head.
#pragma once

#include <torch/types.h>

#include <vector>

namespace graft::nn {

/// Each example's queries attend to that example's keys.
/// query (M, H*D), key and value (N, H*D) -> (M, H*D). `dropout` is the probability on the attention weights.
/// One kernel for all where the device has it (varlen_attention.h); else neighbours of equal length share one call of
/// at::scaled_dot_product_attention, so batches are best sorted by length.
torch::Tensor attention(const torch::Tensor& query, const torch::Tensor& key, const torch::Tensor& value,
                        const std::vector<int64_t>& query_lengths, const std::vector<int64_t>& lengths,
                        int64_t num_heads, double dropout);

}  // namespace graft::nn
