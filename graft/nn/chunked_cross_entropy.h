// Cross-entropy over a large vocabulary without the whole matrix of logits (chunked_logits.h).
// Shapes:  N rows, C channels, V vocabulary.
#pragma once

#include "graft/nn/chunked_logits.h"

namespace graft::nn {

/// The sum over rows of -log softmax(hidden . weight^T + bias)[label]; rows with the label -100 count nothing.
/// hidden (N, C), weight (V, C), labels (N) int64, bias (V) or undefined -> scalar float32. `chunk_rows` 0: as many as fit
/// about 64 MB of logits.
torch::Tensor chunked_cross_entropy(const torch::Tensor& hidden, const torch::Tensor& weight,
                                    const torch::Tensor& labels, int64_t chunk_rows = 0,
                                    const torch::Tensor& bias = {});

/// The same of each chunk, to be joined with others.
ChunkLoss cross_entropy_of(const torch::Tensor& labels);

/// The same for each row, without gradient: (N) float32, 0 where the label is -100.
torch::Tensor chunked_losses(const torch::Tensor& hidden, const torch::Tensor& weight, const torch::Tensor& labels,
                             int64_t chunk_rows = 0);

}  // namespace graft::nn
