#include "graft/select/measure.h"

#include <torch/types.h>

#include <algorithm>
#include <cmath>

#include "graft/core/random.h"
#include "graft/data/splits.h"

namespace graft::select {
namespace {

constexpr int64_t kPairs = 1000, kNeighbours = 4000, kUncounted = 2000;
constexpr int64_t kDraws = 20, kSubsample = 250;

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

/// All scores that count but the linear probe.
std::map<std::string, double> scores_of(const Tensor& features, const Targets& targets,
                                        const std::optional<Tensor>& probabilities, uint64_t seed) {
  std::map<std::string, double> scores;
  if (!targets.classes.defined()) {
    scores["log_me"] = log_me_regression(features, targets.values);
    return scores;
  }
  const auto& y = targets.classes;
  scores["log_me"] = log_me(features, y);
  if (const auto some = sample_of(features, y, kPairs, seed); some.telling)
    scores["parc"] = parc(some.features, some.labels);
  if (const auto some = sample_of(features, y, kNeighbours, seed); some.telling && some.features.size(0) > 5)
    scores["nearest_neighbours"] = nearest_neighbours(some.features, some.labels);
  if (probabilities) {
    scores["leep"] = leep(*probabilities, y);
    scores["nce"] = nce(*probabilities, y);
  }
  return scores;
}

/// How many examples a score is of.
int64_t examples_of(const std::string& score, int64_t n) {
  return std::min(n, score == "parc" ? kPairs : score == "nearest_neighbours" ? kNeighbours : n);
}

std::vector<std::map<std::string, double>> deviations_of(const Tensor& features, const Targets& targets,
                                                         const std::optional<Tensor>& probabilities,
                                                         const Tensor& probe, uint64_t seed) {
  const auto n = features.size(0);
  std::vector<int64_t> strata(n, 0);
  int64_t classes = 1;
  if (targets.classes.defined()) {
    const auto* label = targets.classes.const_data_ptr<int64_t>();
    strata.assign(label, label + n);
    classes = targets.classes.max().item<int64_t>() + 1;
  }
  const auto m = std::max(std::min(n / 2, kSubsample), 2 * classes);
  if (m >= n) return {};
  std::vector<std::map<std::string, double>> draws;
  std::map<std::string, double> means;
  for (int64_t draw = 0; draw < kDraws; ++draw) {
    const auto rows =
        torch::tensor(data::sample_rows(strata, m, seed_of(seed, {"subsample"}, {static_cast<uint64_t>(draw)})));
    const auto some = [&](const Tensor& all) { return all.defined() ? all.index_select(0, rows) : all; };
    draws.push_back(scores_of(some(features), {some(targets.classes), some(targets.values)},
                              probabilities ? std::optional(some(*probabilities)) : std::nullopt, seed));
    draws.back()["linear_probe"] = some(probe).mean().item<double>();
    for (const auto& [name, value] : draws.back()) means[name] += value / kDraws;
  }
  for (auto& draw : draws)
    for (auto& [name, value] : draw) {
      const auto of = std::max(examples_of(name, n), m + 1);
      value = (value - means.at(name)) * std::sqrt(static_cast<double>(m) / static_cast<double>(of - m));
    }
  return draws;
}

}  // namespace

bool counts(const std::string& score) { return score != "trans_rate" && score != "h_score"; }

Measured measure(const Tensor& features, const Targets& targets, const std::optional<Tensor>& probabilities,
                 uint64_t seed) {
  Measured m;
  m.probe =
      targets.classes.defined() ? probe_classes(features, targets.classes) : probe_values(features, targets.values);
  m.scores = scores_of(features, targets, probabilities, seed);
  m.scores["linear_probe"] = m.probe.mean().item<double>();
  if (targets.classes.defined())
    if (const auto some = sample_of(features, targets.classes, kUncounted, seed); some.telling) {
      m.scores["h_score"] = h_score(some.features, some.labels);
      m.scores["trans_rate"] = trans_rate(some.features, some.labels);
    }
  m.deviations = deviations_of(features, targets, probabilities, m.probe, seed);
  return m;
}

}  // namespace graft::select
