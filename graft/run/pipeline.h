// A run: adapt -> head -> unfreeze -> full -> evaluate -> export, in a folder that explains itself and is resumed after
// any kind of death. What decides the result is a function of recipe, data and source; what is saved, and when, is not.
#pragma once

#include "graft/report/progress.h"
#include "graft/run/recipe.h"

namespace graft::run {

/// Runs a recipe to its end, or takes it up again where the folder's newest checkpoint stands (`resume`).
/// Returns the result: adapt, finetune (phases, verdict), test metrics, the model's folder.
/// Throws Interrupted when a signal arrived and the state is saved.
Json run_recipe(const Recipe& recipe, Purpose purpose, bool resume, report::Progress& progress);

/// What a run would do: phases with their parameters, epochs and bytes, whether it fits into memory (`memory`) and what makes
/// it fit, disk; where it fits, from some measured seconds, time of each phase and of the rest, in all as a range.
Json plan_recipe(const Recipe& recipe, Purpose purpose, report::Progress& progress);

}  // namespace graft::run
