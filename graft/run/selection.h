// Which source transfers best to these data: each candidate's frozen chains run once over the training examples, their
// features are scored, and the scores are ranked.
#pragma once

#include "graft/features/part.h"
#include "graft/report/progress.h"
#include "graft/run/recipe.h"
#include "graft/run/task_inputs.h"

namespace graft::run {

/// Measures the recipe's candidates (select.candidates, else those of the list that fit the data) and returns
///   winner, pinned (the same as a recipe's `source`), runner_up (source, pinned, level: the data cannot tell it from the
///   winner; null for none), sentence, task, examples (measured on), training_examples (all that there are),
///   data (modality, domain, reasons), images_decoded, part (of the training examples: for measured_part()),
///   ranking: for each, best first, source, pinned, combined, combined_interval, scores, probe_interval, best_share,
///            parameters, dimensions, seconds, seconds_per_epoch (of all training examples), memory_bytes, rounds (of
///            halving, when the recipe asks for it),
///   dropped: source and reason of each that could not be measured.
/// `folder`: for stored activations; candidate i has the subfolder i of it. `ahead`: boundaries of the coming unfreezings
/// are stored too, as the head phase of a run does it.
/// Throws Kind::usage when nothing of the list fits (naming what does run), Kind::data when classes have too few examples,
/// Kind::model when no candidate could be measured, with the reasons, Kind::network when that is for want of an answer.
Json select_source(const Recipe& recipe, const std::filesystem::path& folder, bool ahead, report::Progress& progress);

/// The training examples on which a run's source was measured, where they are some of these: `selection` is what
/// select_source() gave, `train` the whole split as the run prepared it. Nothing where examples were skipped or repeated or
/// the source changes before the head learns (AdaBN).
std::optional<features::KnownPart> measured_part(const Json& selection, const Recipe& recipe,
                                                 const data::Dataset& dataset, const Prepared& train);

/// What select_source() would do, without fetching or reading a source: candidates (source, here, download_mb) and data.
Json plan_selection(const Recipe& recipe, report::Progress& progress);

}  // namespace graft::run
