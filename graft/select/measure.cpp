#include "graft/select/measure.h"

#include <torch/types.h>

#include "graft/core/random.h"

namespace graft::select {
namespace {

constexpr int64_t kPairs = 1000, kNeighbours = 4000;

struct Sample {
  Tensor features, labels;
  bool telling = false;  // more than one class is left
};

/// At most `count` examples; classes that lost all of theirs are counted no more.
Sample sample_of(const Tensor& features, const Tensor& classes, int64_t count, uint64_t seed) {
  const auto n = features.size(0);
  if (n <= count) return {features, classes, true};
  std::vector<int64_t> order(n);
  for (int64_t i = 0; i < n; ++i) order[i] = i;
  Random(seed).shuffle(order);
  order.resize(count);
  const auto chosen = torch::tensor(order, torch::kInt64);
  const auto labels = std::get<1>(at::_unique(classes.index_select(0, chosen), /*sorted=*/true, true));
  return {features.index_select(0, chosen), labels, labels.max().item<int64_t>() > 0};
}

}  // namespace

Measured measure(const Tensor& features, const Targets& targets, const std::optional<Tensor>& probabilities,
                 uint64_t seed) {
  Measured m;
  if (!targets.classes.defined()) {
    m.probe = probe_values(features, targets.values);
    m.scores["log_me"] = log_me_regression(features, targets.values);
  } else {
    const auto& y = targets.classes;
    m.probe = probe_classes(features, y);
    m.scores["log_me"] = log_me(features, y);
    m.scores["h_score"] = h_score(features, y);
    m.scores["trans_rate"] = trans_rate(features, y);
    if (const auto some = sample_of(features, y, kPairs, seed); some.telling)
      m.scores["parc"] = parc(some.features, some.labels);
    if (const auto some = sample_of(features, y, kNeighbours, seed); some.telling && some.features.size(0) > 5)
      m.scores["nearest_neighbours"] = nearest_neighbours(some.features, some.labels);
    if (probabilities) {
      m.scores["leep"] = leep(*probabilities, y);
      m.scores["nce"] = nce(*probabilities, y);
    }
  }
  m.scores["linear_probe"] = m.probe.mean().item<double>();
  return m;
}

}  // namespace graft::select
