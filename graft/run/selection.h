// Which source transfers best to these data: each candidate's frozen chains run once over the training examples, their
// features are scored, and the scores are ranked.
#pragma once

#include "graft/report/progress.h"
#include "graft/run/recipe.h"

namespace graft::run {

/// Measures the recipe's candidates (select.candidates, else those of the list that fit the data) and returns
///   winner, pinned (the same as a recipe's `source`), sentence, task, examples,
///   ranking: for each, best first, source, pinned, combined, scores, probe_interval, best_share, parameters, dimensions,
///            seconds, seconds_per_epoch, memory_bytes, rounds (of halving, when the recipe asks for it),
///   dropped: source and reason of each that could not be measured.
/// `folder`: for stored activations; candidate i has the subfolder i of it. `ahead`: boundaries of the coming unfreezings
/// are stored too, as the head phase of a run does it.
/// Throws Kind::usage when nothing of the list fits, Kind::data when classes have too few examples, Kind::model when no
/// candidate could be measured, with the reasons.
Json select_source(const Recipe& recipe, const std::filesystem::path& folder, bool ahead, report::Progress& progress);

}  // namespace graft::run
