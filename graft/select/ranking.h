// From the scores of all candidates to one order, with what is known of its certainty.
#pragma once

#include <vector>

#include "graft/core/json.h"
#include "graft/select/measure.h"

namespace graft::select {

struct Candidate {
  std::string name;
  Measured measured;
  double seconds_per_epoch = 0;  // of full fine-tuning on all training examples
};

struct Ranked {
  std::vector<size_t> order;                           // of the candidates, the best first
  std::vector<double> combined;                        // of each candidate: the median of its standardised scores
  std::vector<double> combined_lower, combined_upper;  // 95 %: 1.96 standard deviations over the draws of the sample
  std::vector<double> lower, upper;                    // of each one's linear probe: 95 % of the resampled means
  std::vector<double> best_share;                      // of the resamples, in how many its linear probe was the best
  std::vector<std::vector<char>> level;                // [a][b]: the data cannot tell a's probe from b's
  size_t winner = 0;                      // the first, unless one that is level with it costs at most half as much
  std::map<std::string, size_t> best_by;  // score -> the candidate that it alone would take
  std::string sentence;                   // why, for people
};

/// The combined score is the median, over the scores that all candidates have, of the score's deviation from the mean of
/// the candidates in standard deviations, so that no single score that a source misleads decides; TransRate and the
/// H-score are told beside it and not counted. Its interval: the same of the scores moved by each of
/// Measured::deviations.
/// Intervals of the probe: percentile bootstrap over the examples, the same resamples for all candidates, 1,000 of them.
/// Level: the 95 % intervals of the differences of the two probes and of the two combined scores hold 0.
/// There must be a candidate; all are measured on the same examples.
Ranked rank(const std::vector<Candidate>& candidates, uint64_t seed);

/// The cost rule: the cheapest of `among` that is level with `first` and costs at most half as much, else `first`.
size_t worth_its_cost(const std::vector<Candidate>& candidates, const Ranked& ranked, size_t first,
                      const std::vector<size_t>& among);

/// " By single scores it would be ...": what disagrees with the winner of the scores that count; "" for nothing.
std::string disagreement(const std::vector<Candidate>& candidates, const Ranked& ranked);

}  // namespace graft::select
