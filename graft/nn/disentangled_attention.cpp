#include "graft/nn/disentangled_attention.h"

#include <cmath>

#include "graft/core/error.h"
#include "graft/nn/dropout.h"
#include "graft/nn/runs.h"

namespace graft::nn {
namespace {

using torch::Tensor;

/// In float32 as the reference: distances near the border of a bucket depend on the rounding.
Tensor log_buckets(const Tensor& distances, int64_t buckets, int64_t max_position) {
  const auto half = buckets / 2;
  const auto near = distances.abs() <= half;
  const auto size = distances.abs().clamp_min(std::max<int64_t>(half - 1, 1)).to(torch::kFloat32);
  const auto largest = torch::tensor(static_cast<float>(max_position - 1) / static_cast<float>(half)).log();
  const auto far = torch::ceil((size / half).log() / largest * (half - 1)) + half;
  return torch::where(near, distances, (far * distances.sign()).to(torch::kInt64));
}

struct Part {
  Tensor query, key, value;
  Tensor places;  // (b or 1, Tq) of the queries in their examples
};

/// One run: examples of equal length. position_key and position_query are (1, H, R, D).
Tensor attend(const Part& part, const Tensor& position_key, const Tensor& position_query, const Tensor& rows,
              const Run& run, int64_t num_heads, double scale, double dropout) {
  if (run.query_length == 0) return part.query;  // nothing is read of these examples
  const auto heads = [&](const Tensor& x, int64_t length) {
    return x.view({run.examples, length, num_heads, -1}).transpose(1, 2);  // (b, H, T, D)
  };
  const auto query = heads(part.query, run.query_length) / scale, key = heads(part.key, run.length);
  auto scores = torch::matmul(query, key.transpose(-1, -2));  // (b, H, Tq, T)

  const auto longest = (rows.size(0) + 1) / 2;
  const auto keys = torch::arange(run.length, part.places.options());
  const auto distances = part.places.unsqueeze(-1) - keys + (longest - 1);  // (b or 1, Tq, T)
  const auto row = rows.index({distances}).unsqueeze(1);                    // (b or 1, 1, Tq, T)
  const auto all_heads = [&](const Tensor& x) { return x.expand({run.examples, num_heads, x.size(-2), x.size(-1)}); };
  if (position_key.defined())
    scores = scores + torch::matmul(query, position_key.transpose(-1, -2)).gather(-1, all_heads(row));
  if (position_query.defined()) {
    const auto of_keys = torch::matmul(key, (position_query / scale).transpose(-1, -2));  // (b, H, T, R)
    scores = scores + of_keys.gather(-1, all_heads(row.transpose(-1, -2))).transpose(-1, -2);
  }
  const auto weights = nn::dropout(torch::softmax(scores, -1), dropout, dropout > 0);
  const auto mixed = torch::matmul(weights, heads(part.value, run.length));  // (b, H, Tq, D)
  return mixed.transpose(1, 2).reshape({run.examples * run.query_length, -1});
}

/// The place of each query in its example (M): its row less the first row of the example.
Tensor places_of(const Tensor& index, const std::vector<int64_t>& query_lengths, const std::vector<int64_t>& lengths) {
  std::vector<int64_t> starts(query_lengths.size(), 0);
  for (size_t i = 1; i < starts.size(); ++i) starts[i] = starts[i - 1] + lengths[i - 1];
  const auto repeated =
      torch::tensor(starts, torch::kInt64).repeat_interleave(torch::tensor(query_lengths, torch::kInt64));
  return index - repeated.to(index.device());
}

}  // namespace

Tensor RelativePositions::rows(int64_t longest) const {
  auto distances = torch::arange(1 - longest, longest, torch::kInt64);
  if (buckets > 0) distances = log_buckets(distances, buckets, max_position);
  return (distances + span).clamp(0, 2 * span - 1);
}

Tensor disentangled_attention(const Disentangled& x, const Tensor& rows, const Tensor& index,
                              const std::vector<int64_t>& query_lengths, const std::vector<int64_t>& lengths,
                              int64_t num_heads, int64_t terms, double dropout) {
  const auto runs = runs_of(query_lengths, lengths);
  GRAFT_ASSERT(!runs.empty());
  const double scale =
      std::sqrt(static_cast<double>(x.query.size(1)) / static_cast<double>(num_heads) * static_cast<double>(terms));
  const auto table = [&](const Tensor& projected) {  // (R, H*D) -> (1, H, R, D)
    return projected.defined() ? projected.view({1, projected.size(0), num_heads, -1}).transpose(1, 2) : projected;
  };
  const auto position_key = table(x.position_key), position_query = table(x.position_query);

  std::vector<int64_t> query_rows, key_rows;
  for (const auto& run : runs) {
    query_rows.push_back(run.examples * run.query_length);
    key_rows.push_back(run.examples * run.length);
  }
  // One split each, as in attention(): its backward is one cat.
  const auto q = x.query.split_with_sizes(query_rows), k = x.key.split_with_sizes(key_rows),
             v = x.value.split_with_sizes(key_rows);
  const auto places =
      index.defined() ? places_of(index, query_lengths, lengths).split_with_sizes(query_rows) : std::vector<Tensor>();
  std::vector<Tensor> mixed;
  for (size_t i = 0; i < runs.size(); ++i) {
    const auto& run = runs[i];
    const Part part{q[i], k[i], v[i],
                    index.defined() ? places[i].view({run.examples, run.query_length})
                                    : torch::arange(run.length, rows.options()).unsqueeze(0)};
    mixed.push_back(attend(part, position_key, position_query, rows, run, num_heads, scale, dropout));
  }
  return mixed.size() == 1 ? mixed.front() : torch::cat(mixed);
}

}  // namespace graft::nn
