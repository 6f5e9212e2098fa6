// Losses over a large vocabulary without the whole matrix of logits: some rows at a time, value and gradient in one pass, so
// that memory holds a few chunks of logits. The gradient of a sum is known before what follows it: each chunk leaves its own
// behind and is forgotten.
// Shapes:  N rows, n of a chunk, C channels, V vocabulary.
#pragma once

#include <torch/types.h>

#include <functional>

namespace graft::nn {

/// logits = hidden matrix^T + bias: hidden (N, C), matrix (V, C), bias (V) or undefined.
struct LogitsOf {
  torch::Tensor hidden, matrix, bias;
};

/// A loss of the rows from `start` on, given their log softmax `log_p` (n, V), which it may overwrite: returns its sum, a
/// scalar, and where `of_logits` is not null leaves there its derivative by the logits (n, V).
using ChunkLoss = std::function<torch::Tensor(int64_t start, torch::Tensor log_p, torch::Tensor* of_logits)>;

/// The sum over all rows, a scalar in float32 (float64 for inputs in float64), with its gradient to what of `logits` learns.
/// `chunk_rows` 0: as many as fit about 64 MB of logits.
torch::Tensor chunked_sum(const LogitsOf& logits, const ChunkLoss& loss, int64_t chunk_rows = 0);

/// log softmax (n, V) of the rows from `start` on, in float32 or float64.
torch::Tensor chunk_log_softmax(const LogitsOf& logits, int64_t start, int64_t n);
int64_t rows_of_chunk(const LogitsOf& logits, int64_t wanted);

}  // namespace graft::nn
