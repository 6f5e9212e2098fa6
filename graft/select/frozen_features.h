// What a candidate's frozen chains give for each example (or each labelled word), as a matrix for the scores.
#pragma once

#include <optional>
#include <vector>

#include "graft/data/dataset.h"
#include "graft/features/feed.h"
#include "graft/select/measure.h"
#include "graft/train/task_stream.h"

namespace graft::select {

struct FrozenFeatures {
  Tensor values;                        // [n, d] float32: at the ends of all chains, where the head reads
  std::optional<Tensor> probabilities;  // [n, Z] of the source's own classifier
  Targets targets;
};

/// Maps of features are averaged over their places, and what a head reads at several positions over these; for the task
/// tokens, the row of each labelled word's first token is an example (at most `most` of them, a seeded sample).
/// `classifier`: a head of the same model that was trained on the source's own classes, or nullptr; it must read where the
/// model's head reads.
/// Throws Kind::data when a class of the sample has fewer than 5 examples.
FrozenFeatures frozen_features(models::Model& model, const features::Feed& feed, const std::string& task,
                               const std::vector<std::string>& label_names, const data::Examples& examples,
                               const train::Alignment& alignment, models::Head* classifier, int64_t most,
                               uint64_t seed);

/// Throws Kind::data naming the classes that have fewer than 5 of these examples, which is what scores need.
void expect_enough(const std::vector<int64_t>& labels, const std::vector<std::string>& label_names);

}  // namespace graft::select
