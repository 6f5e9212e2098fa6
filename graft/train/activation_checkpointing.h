// Activation checkpointing (Chen et al. 2016, "Training deep nets with sublinear memory cost"): of each block only what
// enters it is kept; the rest is computed again when the gradient comes back.
#pragma once

#include "graft/models/model.h"

namespace graft::train {

/// One block of a chain like Model::forward(chain, block, block + 1, x, needed), with the same values and gradients (to
/// the bit, but where several blocks read one slot or table: their gradients then add up in another order). Dropout
/// draws the same numbers again, autocast is as it was. Costs one more forward pass of the block.
models::Activations forward_checkpointed(models::Model& model, const std::string& chain, int64_t block,
                                         models::Activations x, const models::Reads& needed);

}  // namespace graft::train
