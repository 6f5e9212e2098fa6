// A start for the head that no learning rate has to find: the optimum of ridge regression on what enters its last layer.
// First-token features of several families hardly differ from text to text, and gradient steps of any size that suits
// other features do not learn from them; the closed form does.
#pragma once

#include "graft/train/stream.h"

namespace graft::finetune {

/// Sets the weight and bias of the head's last linear layer from the stream's examples (at most 20,000 of them, a seeded
/// sample); all else stays. Classes: regression onto one-hot labels, then scaled so that the cross-entropy of the
/// leave-one-out predictions is smallest; several labels likewise with the binary cross-entropy; values as they are.
/// False, and nothing is changed, when the task has other targets, or the head's last layer is not a linear one.
bool closed_form_start(models::Model& model, const train::Stream& stream, int64_t batch_rows, bool bf16, uint64_t seed);

}  // namespace graft::finetune
