// The percentile bootstrap behind train/metrics.h.
#pragma once

#include <cmath>

#include "graft/core/random.h"
#include "graft/train/metrics.h"

namespace graft::train {

template <class Statistic>
Interval bootstrap(int64_t examples, uint64_t seed, Statistic&& statistic, int64_t resamples) {
  Random random(seed);
  std::vector<double> values;
  std::vector<int64_t> sample(examples);
  for (int64_t r = 0; r < resamples; ++r) {
    for (auto& i : sample) i = static_cast<int64_t>(random.below(examples));
    const double value = statistic(sample);
    if (std::isfinite(value)) values.push_back(value);
  }
  if (values.empty()) return {0, 0, 0};
  std::sort(values.begin(), values.end());
  double mean = 0, square = 0;
  for (const auto v : values) mean += v / values.size();
  for (const auto v : values) square += (v - mean) * (v - mean);
  const auto at = [&](double q) { return values[static_cast<size_t>(q * (values.size() - 1))]; };
  return {at(0.025), at(0.975), std::sqrt(square / std::max<size_t>(1, values.size() - 1))};
}

}  // namespace graft::train
