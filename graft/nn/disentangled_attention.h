// DeBERTa's attention: content to content, content to position and position to content, with relative positions.
// Paper:   He et al. 2021, https://arxiv.org/abs/2006.03654, eq. 4; log buckets: https://arxiv.org/abs/2111.09543.
// Source:  transformers 5.17, DisentangledSelfAttention of deberta and deberta_v2.
// Shapes:  B examples, N = sum of lengths, M = sum of query lengths, H heads, D width of a head, R rows of the table.
#pragma once

#include <torch/types.h>

#include <vector>

namespace graft::nn {

/// How a distance (query - key) becomes a row of the table of 2 * span rows.
struct RelativePositions {
  int64_t span = 512;          // distances beyond it share the outermost rows
  int64_t buckets = 0;         // above 0: far distances share rows on a logarithmic scale, and span = buckets
  int64_t max_position = 512;  // the distance that the last bucket holds (log buckets only)

  /// (2 * longest - 1) int64, on the CPU and ascending: the row of distance d stands at d + longest - 1.
  torch::Tensor rows(int64_t longest) const;
};

/// What the projections of a layer give.
struct Disentangled {
  torch::Tensor query, key, value;             // (M, H*D), (N, H*D), (N, H*D)
  torch::Tensor position_key, position_query;  // (R, H*D); undefined where the model has no such term
};

/// Each example's queries attend to that example's keys. `rows` (2 * longest - 1) gives the row of `position_key` and
/// `position_query` for each distance. `index` (M) are the rows of the queries among the N; undefined: all of them.
/// Every term is divided by sqrt(D * `terms`). `dropout` is the probability on the attention weights. -> (M, H*D)
torch::Tensor disentangled_attention(const Disentangled& x, const torch::Tensor& rows, const torch::Tensor& index,
                                     const std::vector<int64_t>& query_lengths, const std::vector<int64_t>& lengths,
                                     int64_t num_heads, int64_t terms, double dropout);

}  // namespace graft::nn
