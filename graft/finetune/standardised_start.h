// Fresh layers of the head start where the data are: each reads its inputs standardised.
// First-token features of many blocks have a large part that all examples share and a small one that tells them apart. A
// layer drawn without regard to that passes on the shared part, and what stands behind it hardly learns.
// Source:  Krähenbühl et al. 2016, https://arxiv.org/abs/1511.06856 (sec. 3.1; the inputs' scale is by feature here)
#pragma once

#include <string>
#include <vector>

#include "graft/train/stream.h"

namespace graft::finetune {

/// Of the head's linear layers those whose weight is among `fresh`, the last one apart: with m and s the mean and the
/// deviation of each input feature over the stream's examples (at most 2,000, a seeded sample; dropout before the layer
/// counts as deviation), the layer becomes W diag(1/s) (x - m), scaled so that its outputs have variance 1 on average. It
/// stays one linear layer. Its bias must be fresh too. How many layers were changed; 0 where the task is none of
/// classification, multilabel and regression.
int64_t standardised_start(models::Model& model, const std::vector<std::string>& fresh, const train::Stream& stream,
                           int64_t batch_rows, bool bf16, uint64_t seed);

}  // namespace graft::finetune
