#include "graft/train/batches.h"

#include <algorithm>
#include <numeric>

#include "graft/core/random.h"

namespace graft::train {
namespace {

constexpr int64_t kPoolBatches = 50;  // as transformers' length-grouped sampler has it

std::vector<int64_t> all_examples(const Stream& stream) {
  std::vector<int64_t> order(stream.size());
  std::iota(order.begin(), order.end(), 0);
  return order;
}

template <class Iterator>
void sort_by_rows(const Stream& stream, Iterator begin, Iterator end) {
  std::stable_sort(begin, end, [&](int64_t a, int64_t b) { return stream.rows(a) < stream.rows(b); });
}

}  // namespace

std::vector<std::vector<int64_t>> epoch_batches(const Stream& stream, int64_t batch_size, uint64_t seed) {
  auto order = all_examples(stream);
  Random random(seed);
  random.shuffle(order);
  std::vector<std::vector<int64_t>> batches;
  const int64_t pool = batch_size * kPoolBatches, n = stream.size();
  for (int64_t start = 0; start < n; start += pool) {
    const auto end = std::min(start + pool, n);
    sort_by_rows(stream, order.begin() + start, order.begin() + end);
    for (int64_t i = start; i < end; i += batch_size)
      batches.emplace_back(order.begin() + i, order.begin() + std::min(i + batch_size, end));
  }
  random.shuffle(batches);
  return batches;
}

std::vector<std::vector<int64_t>> micro_batches(const Stream& stream, const std::vector<int64_t>& batch, int64_t rows) {
  std::vector<std::vector<int64_t>> parts;
  int64_t sum = 0;
  for (const auto example : batch) {
    if (parts.empty() || sum + stream.rows(example) > rows) {
      parts.emplace_back();
      sum = 0;
    }
    parts.back().push_back(example);
    sum += stream.rows(example);
  }
  return parts;
}

std::vector<std::vector<int64_t>> batches_by_rows(const Stream& stream, int64_t rows) {
  auto order = all_examples(stream);
  sort_by_rows(stream, order.begin(), order.end());
  return micro_batches(stream, order, rows);
}

}  // namespace graft::train
