// Attention of decoders: each token sees itself and what stands before it in its own example, within a window if there is
// one; several query heads may share one head of keys and values.
// Papers:  Vaswani et al. 2017, https://arxiv.org/abs/1706.03762; grouped queries: Ainslie et al. 2023,
//          https://arxiv.org/abs/2305.13245; window: Beltagy et al. 2020, https://arxiv.org/abs/2004.05150
// Shapes:  B examples, N = sum of lengths, M = sum of query lengths, H query heads, K heads of keys, D width of a head.
#pragma once

#include <torch/types.h>

#include <optional>
#include <vector>

namespace graft::nn {

/// Keys and values of the tokens that were read so far, for B sequences that grow: (B, K, capacity, D) a layer.
struct KeyValueCache {
  KeyValueCache(int64_t layers, int64_t sequences, int64_t capacity);
  struct Layer {
    torch::Tensor keys, values;
  };
  std::vector<Layer> layers;
  std::vector<int64_t> lengths;  // tokens held, per sequence; the model raises them after all layers
  int64_t capacity;

  /// Goes on with these sequences only, in this order.
  void keep(const std::vector<int64_t>& sequences);
};

/// Which rows belong together, and which of them ask.
struct CausalRows {
  const std::vector<int64_t>& lengths;        // rows per example
  const std::vector<int64_t>& query_lengths;  // of them, rows that are computed
  torch::Tensor index = {};                   // (M) these rows among the N, ascending; undefined for all
  KeyValueCache* cache = nullptr;             // the rows stand behind what it holds, and are added to it
  int64_t layer = 0;                          // of the cache
};

struct CausalOptions {
  int64_t num_heads = 1, num_key_value_heads = 1;
  int64_t window = 0;                // a token sees this many, itself counted; 0: all
  double dropout = 0;                // on the attention weights
  std::optional<double> scale = {};  // 1 / sqrt(D) when absent
};

/// query (M, H*D), key and value (N, K*D) -> (M, H*D).
torch::Tensor causal_attention(const torch::Tensor& query, const torch::Tensor& key, const torch::Tensor& value,
                               const CausalRows& rows, const CausalOptions& options);

}  // namespace graft::nn
