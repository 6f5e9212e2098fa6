// Neighbouring examples of equal length: they share one call of an operation that sees examples apart.
#pragma once

#include <cstdint>
#include <vector>

namespace graft::nn {

struct Run {
  int64_t examples, query_length, length;
};

/// In the order of the batch; `query_lengths` is `lengths` where every row asks.
inline std::vector<Run> runs_of(const std::vector<int64_t>& query_lengths, const std::vector<int64_t>& lengths) {
  std::vector<Run> runs;
  for (size_t i = 0; i < lengths.size(); ++i) {
    if (!runs.empty() && runs.back().query_length == query_lengths[i] && runs.back().length == lengths[i])
      ++runs.back().examples;
    else runs.push_back({1, query_lengths[i], lengths[i]});
  }
  return runs;
}

}  // namespace graft::nn
