#include "graft/nn/causal_attention.h"

#include <algorithm>
#include <functional>

#include "graft/core/error.h"
#include "graft/nn/scaled_dot_product.h"
#include "graft/nn/varlen_attention.h"

namespace graft::nn {
namespace {

using torch::Tensor;

/// Neighbouring examples with equal numbers of keys and queries, and where their rows begin.
struct CausalRun {
  int64_t examples, query_length, length, first_query, first_row;
};

std::vector<CausalRun> runs_of(const CausalRows& rows) {
  std::vector<CausalRun> runs;
  int64_t query = 0, row = 0;
  for (size_t i = 0; i < rows.lengths.size(); ++i) {
    const auto m = rows.query_lengths[i], n = rows.lengths[i];
    if (!runs.empty() && runs.back().query_length == m && runs.back().length == n) ++runs.back().examples;
    else runs.push_back({1, m, n, query, row});
    query += m;
    row += n;
  }
  return runs;
}

/// Which of T keys the queries at `places` (b, Tq) see: (b, 1, Tq, T).
Tensor visible(const Tensor& places, int64_t length, int64_t window) {
  const auto keys = torch::arange(length, places.options()).view({1, 1, length}), at = places.unsqueeze(-1);
  auto sees = keys <= at;
  if (window > 0) sees = sees.logical_and(keys > at - window);
  return sees.unsqueeze(1);
}

/// (b, K, T, D) -> (b, H, T, D): query heads h * H/K ... share head h.
Tensor shared_by_groups(const Tensor& x, int64_t num_heads) {
  const auto b = x.size(0), K = x.size(1), T = x.size(2), D = x.size(3);
  if (K == num_heads) return x;
  return x.unsqueeze(2).expand({b, K, num_heads / K, T, D}).reshape({b, num_heads, T, D});
}

Tensor heads_of(const Tensor& x, int64_t examples, int64_t length, int64_t num_heads) {
  return x.view({examples, length, num_heads, x.size(1) / num_heads}).transpose(1, 2);  // (b, H, T, D)
}

Tensor attend(const Tensor& query, const Tensor& key, const Tensor& value, const CausalRun& run, const CausalRows& rows,
              const CausalOptions& o) {
  if (run.query_length == 0) return query;  // nothing is read of these examples
  const auto q = heads_of(query, run.examples, run.query_length, o.num_heads);
  const auto k = shared_by_groups(heads_of(key, run.examples, run.length, o.num_key_value_heads), o.num_heads);
  const auto v = shared_by_groups(heads_of(value, run.examples, run.length, o.num_key_value_heads), o.num_heads);
  Tensor mask;
  const bool all = !rows.index.defined();
  if (!all || (o.window > 0 && run.length > o.window)) {
    const auto options = torch::TensorOptions().dtype(torch::kInt64).device(query.device());
    const auto places = all ? torch::arange(run.length, options).unsqueeze(0).expand({run.examples, run.length})
                            : rows.index.narrow(0, run.first_query, run.examples * run.query_length)
                                      .view({run.examples, run.query_length}) -
                                  (run.first_row + torch::arange(run.examples, options).unsqueeze(1) * run.length);
    mask = visible(places, run.length, o.window);
  }
  const auto mixed =
      scaled_dot_product(q, k, v, mask, {.dropout = o.dropout, .causal = !mask.defined(), .scale = o.scale});
  return mixed.transpose(1, 2).reshape({run.examples * run.query_length, -1});
}

/// Puts new rows behind those of their sequence. x (N, K*D) into (B, K, capacity, D).
void append(Tensor& held, const Tensor& x, const CausalRows& rows, int64_t num_heads) {
  const auto& cache = *rows.cache;
  const auto B = static_cast<int64_t>(rows.lengths.size());
  // Zeros: what stands behind a shorter sequence is masked, but 0 times not-a-number would not be 0.
  if (!held.defined()) held = torch::zeros({B, num_heads, cache.capacity, x.size(1) / num_heads}, x.options());
  const auto all_equal = [](const std::vector<int64_t>& values) {
    return std::adjacent_find(values.begin(), values.end(), std::not_equal_to<>()) == values.end();
  };
  if (rows.lengths.front() == 1 && all_equal(rows.lengths) && all_equal(cache.lengths)) {
    GRAFT_ASSERT(cache.lengths.front() < cache.capacity, "the cache is full");
    held.select(2, cache.lengths.front()).copy_(x.view({B, num_heads, -1}));
    return;
  }
  int64_t start = 0;
  for (int64_t b = 0; b < B; ++b) {
    const auto n = rows.lengths[b];
    GRAFT_ASSERT(cache.lengths[b] + n <= cache.capacity, "the cache is full");
    held[b].narrow(1, cache.lengths[b], n).copy_(heads_of(x.narrow(0, start, n), 1, n, num_heads)[0]);
    start += n;
  }
}

/// One new token a sequence against everything that its sequence holds: (B, H*D).
Tensor attend_to_cache(const Tensor& query, const CausalRows& rows, const CausalOptions& o) {
  const auto& cache = *rows.cache;
  const auto B = static_cast<int64_t>(rows.lengths.size());
  const auto longest = *std::max_element(cache.lengths.begin(), cache.lengths.end()) + 1;
  const auto shortest = *std::min_element(cache.lengths.begin(), cache.lengths.end()) + 1;
  const auto K = o.num_key_value_heads;
  Tensor mask;
  if (shortest != longest || (o.window > 0 && longest > o.window)) {
    const auto places = torch::tensor(cache.lengths, torch::kInt64).to(query.device()).unsqueeze(1);  // (B, 1)
    mask = visible(places, longest, o.window);
  }
  const auto& layer = cache.layers[rows.layer];
  // The heads that share one of keys ask as if they were its tokens, so that it is not repeated for each: they all stand at
  // the same place.
  const auto mixed = scaled_dot_product(query.view({B, K, o.num_heads / K, -1}), layer.keys.narrow(2, 0, longest),
                                        layer.values.narrow(2, 0, longest), mask, {.scale = o.scale});
  return mixed.reshape({B, -1});
}

}  // namespace

KeyValueCache::KeyValueCache(int64_t layers, int64_t sequences, int64_t capacity)
    : layers(layers), lengths(sequences, 0), capacity(capacity) {}

void KeyValueCache::keep(const std::vector<int64_t>& sequences) {
  const auto index = torch::tensor(sequences, torch::kInt64);
  for (auto& layer : layers) {
    if (!layer.keys.defined()) continue;
    layer.keys = layer.keys.index_select(0, index.to(layer.keys.device()));
    layer.values = layer.values.index_select(0, index.to(layer.values.device()));
  }
  std::vector<int64_t> kept;
  for (const auto i : sequences) kept.push_back(lengths[i]);
  lengths = kept;
}

Tensor causal_attention(const Tensor& query, const Tensor& key, const Tensor& value, const CausalRows& rows,
                        const CausalOptions& o) {
  if (rows.cache) {
    auto& layer = rows.cache->layers[rows.layer];
    append(layer.keys, key, rows, o.num_key_value_heads);
    append(layer.values, value, rows, o.num_key_value_heads);
    const auto& held = rows.cache->lengths;
    if (std::any_of(held.begin(), held.end(), [](auto n) { return n > 0; })) {
      GRAFT_ASSERT(!rows.index.defined() || query.size(0) == key.size(0));
      GRAFT_ASSERT(std::all_of(rows.lengths.begin(), rows.lengths.end(), [](auto n) { return n == 1; }),
                   "one new token at a time");
      return attend_to_cache(query, rows, o);
    }
  }
  const auto runs = runs_of(rows);
  GRAFT_ASSERT(!runs.empty());
  if (runs.size() == 1) return attend(query, key, value, runs[0], rows, o);
  if (!rows.index.defined()) {
    const auto by_heads = [](const Tensor& x, int64_t heads) { return x.view({x.size(0), heads, x.size(1) / heads}); };
    const auto K = o.num_key_value_heads;
    if (const auto mixed = varlen_attention(
            by_heads(query, o.num_heads), by_heads(key, K), by_heads(value, K), rows.query_lengths, rows.lengths,
            {.causal = true, .window = o.window, .dropout = o.dropout, .scale = o.scale}))
      return mixed->flatten(1);
  }
  // One split and one cat, as in attention.cpp: a narrow per run would have a zero-padded gradient of the whole batch.
  std::vector<int64_t> query_rows, key_rows;
  for (const auto& run : runs) {
    query_rows.push_back(run.examples * run.query_length);
    key_rows.push_back(run.examples * run.length);
  }
  const auto q = query.split_with_sizes(query_rows), k = key.split_with_sizes(key_rows),
             v = value.split_with_sizes(key_rows);
  std::vector<Tensor> mixed;
  for (size_t i = 0; i < runs.size(); ++i) mixed.push_back(attend(q[i], k[i], v[i], runs[i], rows, o));
  return torch::cat(mixed);
}

}  // namespace graft::nn
