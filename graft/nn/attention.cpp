#include "graft/nn/attention.h"

#include "graft/core/error.h"
#include "graft/nn/runs.h"
#include "graft/nn/scaled_dot_product.h"
#include "graft/nn/varlen_attention.h"

namespace graft::nn {
namespace {

using torch::Tensor;

Tensor attend(const Tensor& query, const Tensor& key, const Tensor& value, const Run& run, int64_t num_heads,
              double dropout) {
  if (run.query_length == 0) return query;  // nothing is read of these examples
  const auto heads = [&](const Tensor& x, int64_t length) {
    return x.view({run.examples, length, num_heads, -1}).transpose(1, 2);  // (b, H, T, D)
  };
  const auto mixed = scaled_dot_product(heads(query, run.query_length), heads(key, run.length),
                                        heads(value, run.length), {}, {.dropout = dropout});
  return mixed.transpose(1, 2).reshape({run.examples * run.query_length, -1});
}

}  // namespace

Tensor attention(const Tensor& query, const Tensor& key, const Tensor& value, const std::vector<int64_t>& query_lengths,
                 const std::vector<int64_t>& lengths, int64_t num_heads, double dropout) {
  const auto runs = runs_of(query_lengths, lengths);
  GRAFT_ASSERT(!runs.empty());
  if (runs.size() == 1) return attend(query, key, value, runs[0], num_heads, dropout);
  const auto by_heads = [&](const Tensor& x) { return x.view({x.size(0), num_heads, x.size(1) / num_heads}); };
  if (const auto mixed = varlen_attention(by_heads(query), by_heads(key), by_heads(value), query_lengths, lengths,
                                          {.dropout = dropout}))
    return mixed->flatten(1);

  // One split and one cat: their backward is one cat and one split, while a narrow per run would
  // add a zero-padded gradient of the whole batch for each.
  std::vector<int64_t> query_rows, rows;
  for (const auto& run : runs) {
    query_rows.push_back(run.examples * run.query_length);
    rows.push_back(run.examples * run.length);
  }
  const auto q = query.split_with_sizes(query_rows), k = key.split_with_sizes(rows), v = value.split_with_sizes(rows);
  std::vector<Tensor> mixed;
  for (size_t i = 0; i < runs.size(); ++i) mixed.push_back(attend(q[i], k[i], v[i], runs[i], num_heads, dropout));
  return torch::cat(mixed);
}

}  // namespace graft::nn
