// Are the features useful? The head on the source's features against the majority class and against the same head on a
// randomly initialised copy, by paired bootstrap over the validation examples.
#pragma once

#include "graft/core/json.h"
#include "graft/train/metrics.h"

namespace graft::finetune {

/// All predictions are over the same examples. `majority` predicts the commonest class (or the mean) everywhere.
/// verdict: useful | weak | no, with values, differences and their 95 % intervals, `sentence` and `advice`.
Json verdict(const std::string& metric, const train::Predictions& head, const train::Predictions& majority,
             const train::Predictions& random, uint64_t seed);

/// The commonest class of `training` (for tokens and several labels alike; the mean for regression) for all of `targets`.
train::Predictions majority_predictions(const train::Predictions& training, const train::Predictions& targets);

}  // namespace graft::finetune
