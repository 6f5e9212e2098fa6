#include "graft/select/ranking.h"

#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "graft/core/error.h"
#include "graft/core/random.h"

namespace graft::select {
namespace {

constexpr int64_t kResamples = 1000;

/// How often each example is drawn in each resample, [resamples, n].
Tensor resamples(int64_t n, uint64_t seed) {
  auto counts = torch::zeros({kResamples, n}, torch::kFloat);
  auto count = counts.accessor<float, 2>();
  Random random(seed);
  for (int64_t r = 0; r < kResamples; ++r)
    for (int64_t i = 0; i < n; ++i) count[r][static_cast<int64_t>(random.below(static_cast<uint64_t>(n)))] += 1;
  return counts;
}

/// 2.5 % and 97.5 % of the values.
std::pair<double, double> interval(const Tensor& values) {
  const auto sorted = std::get<0>(values.sort());
  const auto at = [&](double share) {
    return sorted[static_cast<int64_t>(share * static_cast<double>(values.size(0) - 1))].item<double>();
  };
  return {at(0.025), at(0.975)};
}

using Scores = std::map<std::string, double>;

/// The median over the scores that count and that all have, each in standard deviations of the candidates.
std::vector<double> combine(const std::vector<Scores>& candidates) {
  const auto k = candidates.size();
  std::vector<std::vector<double>> standardised(k);
  for (const auto& [name, unused] : candidates.front()) {
    if (!counts(name)) continue;
    std::vector<double> values;
    for (const auto& scores : candidates) {
      const auto found = scores.find(name);
      if (found != scores.end()) values.push_back(found->second);
    }
    if (values.size() < k) continue;
    const double mean = std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(k);
    double variance = 0;
    for (const auto value : values) variance += (value - mean) * (value - mean) / static_cast<double>(k);
    if (!(variance > 0)) continue;
    for (size_t i = 0; i < k; ++i) standardised[i].push_back((values[i] - mean) / std::sqrt(variance));
  }
  std::vector<double> combined;
  for (const auto& of_one : standardised)  // at::median takes the lower of two in the middle, the quantile their mean
    combined.push_back(of_one.empty() ? 0 : torch::tensor(of_one, torch::kDouble).quantile(0.5).item<double>());
  return combined;
}

/// Of each draw that all candidates have, how far each candidate's combined score moves.
std::vector<std::vector<double>> combined_moves(const std::vector<Candidate>& candidates,
                                                const std::vector<double>& combined) {
  auto draws = candidates.front().measured.deviations.size();
  for (const auto& candidate : candidates) draws = std::min(draws, candidate.measured.deviations.size());
  std::vector<std::vector<double>> moves;
  for (size_t draw = 0; draw < draws; ++draw) {
    std::vector<Scores> moved;
    for (const auto& candidate : candidates) {
      moved.push_back(candidate.measured.scores);
      for (const auto& [name, deviation] : candidate.measured.deviations[draw])
        if (const auto found = moved.back().find(name); found != moved.back().end()) found->second += deviation;
    }
    moves.push_back(combine(moved));
    for (size_t i = 0; i < combined.size(); ++i) moves.back()[i] -= combined[i];
  }
  return moves;
}

/// 1.96 standard deviations of what `move` gives of each draw; 0 without draws.
template <class Move>
double reach(const std::vector<std::vector<double>>& moves, Move&& move) {
  double squares = 0;
  for (const auto& draw : moves) squares += move(draw) * move(draw) / static_cast<double>(moves.size());
  return 1.96 * std::sqrt(squares);
}

}  // namespace

Ranked rank(const std::vector<Candidate>& candidates, uint64_t seed) {
  GRAFT_ASSERT(!candidates.empty());
  const auto k = candidates.size();
  Ranked r;
  std::vector<Scores> scores;
  for (const auto& candidate : candidates) scores.push_back(candidate.measured.scores);
  r.combined = combine(scores);
  const auto moves = combined_moves(candidates, r.combined);
  for (size_t i = 0; i < k; ++i) {
    const auto of_it = reach(moves, [&](const auto& draw) { return draw[i]; });
    r.combined_lower.push_back(r.combined[i] - of_it);
    r.combined_upper.push_back(r.combined[i] + of_it);
  }
  r.order.resize(k);
  std::iota(r.order.begin(), r.order.end(), 0);
  std::stable_sort(r.order.begin(), r.order.end(), [&](size_t a, size_t b) { return r.combined[a] > r.combined[b]; });

  std::vector<Tensor> probes;
  for (const auto& candidate : candidates) probes.push_back(candidate.measured.probe.to(torch::kFloat));
  const auto n = probes.front().size(0);
  // Means of each resample, [resamples, candidates].
  const auto means = resamples(n, seed).matmul(torch::stack(probes, 1)) / static_cast<double>(n);
  const auto bests = torch::bincount(means.argmax(1), {}, static_cast<int64_t>(k));
  for (size_t i = 0; i < k; ++i) {
    const auto [lower, upper] = interval(means.select(1, static_cast<int64_t>(i)));
    r.lower.push_back(lower);
    r.upper.push_back(upper);
    r.best_share.push_back(bests[static_cast<int64_t>(i)].item<double>() / kResamples);
  }
  for (const auto& [name, unused] : candidates.front().measured.scores) {
    std::optional<size_t> best;
    for (size_t i = 0; i < k; ++i) {
      const auto found = candidates[i].measured.scores.find(name);
      if (found == candidates[i].measured.scores.end()) continue;
      if (!best || found->second > candidates[*best].measured.scores.at(name)) best = i;
    }
    r.best_by[name] = *best;
  }

  r.level.assign(k, std::vector<char>(k, 1));
  for (size_t a = 0; a < k; ++a)
    for (size_t b = 0; b < k; ++b) {
      const auto [lower, upper] =
          interval(means.select(1, static_cast<int64_t>(a)) - means.select(1, static_cast<int64_t>(b)));
      const bool scores_level = moves.empty() || std::abs(r.combined[a] - r.combined[b]) <=
                                                     reach(moves, [&](const auto& draw) { return draw[a] - draw[b]; });
      r.level[a][b] = lower <= 0 && upper >= 0 && scores_level;
    }

  const auto first = r.order.front();
  const auto& name = [&](size_t i) -> const std::string& { return candidates[i].name; };
  r.winner = worth_its_cost(candidates, r, first, r.order);
  if (r.winner != first)
    r.sentence = fmt::format(
        "{} is taken: {} scores higher, but the data cannot tell the two apart, and it takes {:.1f} times as long.",
        name(r.winner), name(first), candidates[first].seconds_per_epoch / candidates[r.winner].seconds_per_epoch);
  else if (k == 1) r.sentence = name(first) + " is taken: it is the only candidate that could be measured.";
  else
    r.sentence = fmt::format("{} is taken; next is {}, which the data {}.", name(first), name(r.order[1]),
                             r.level[first][r.order[1]] ? "cannot tell from it" : "show to be worse");
  r.sentence += disagreement(candidates, r);
  return r;
}

size_t worth_its_cost(const std::vector<Candidate>& candidates, const Ranked& ranked, size_t first,
                      const std::vector<size_t>& among) {
  auto winner = first;
  for (const auto i : among)
    if (candidates[i].seconds_per_epoch <= 0.5 * candidates[first].seconds_per_epoch &&
        candidates[i].seconds_per_epoch < candidates[winner].seconds_per_epoch && ranked.level[first][i])
      winner = i;
  return winner;
}

std::string disagreement(const std::vector<Candidate>& candidates, const Ranked& ranked) {
  std::vector<std::string> others;
  for (const auto& [score, best] : ranked.best_by)
    if (best != ranked.winner && counts(score)) others.push_back(fmt::format("{} ({})", candidates[best].name, score));
  return others.empty() ? "" : " By single scores it would be " + listed(others) + ".";
}

}  // namespace graft::select
