// Batch norms' statistics: estimated anew on the target domain, before anything learns (AdaBN), or held at the source's.
// Paper: Li et al. 2017, https://arxiv.org/abs/1603.04779
#pragma once

#include <functional>

#include "graft/features/inputs.h"
#include "graft/models/model.h"

namespace graft::train {

/// Replaces running mean and variance of every batch norm in the chains by those of `inputs`: the average over batches of at
/// most `batch_rows` rows, each norm seeing what the norms before it made of the batch. Nothing else of the model changes, and
/// batches follow from the inputs and `batch_rows` alone. Returns the number of norms; 0: the model has none.
/// `progress(done, total)` in batches. Throws Kind::data for fewer than two examples.
int64_t estimate_batch_norm(models::Model& model, const features::Inputs& inputs, int64_t batch_rows,
                            const std::function<void(int64_t, int64_t)>& progress = {});

bool has_batch_norm(const models::Model& model);

/// From now on every batch norm in the chains computes with the statistics that it has, also where its block learns.
/// Returns their number.
int64_t hold_batch_norm(models::Model& model);

}  // namespace graft::train
