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

/// Some rows of a chunk, small enough for a processor's cache.
struct Block {
  int64_t start;            // its first row
  int64_t chunk_end;        // the row behind the last of its chunk
  torch::Tensor log_p;      // (n, V), log softmax of the logits
  torch::Tensor p;          // (n, V), its exponential
  torch::Tensor of_logits;  // (n, V), the derivative of all losses by the logits; undefined where nothing learns
  double weight = 1;        // of this loss in `of_logits`
};

/// A loss: returns its sum over the block's rows, a scalar, and adds `weight` times its derivative to `of_logits`. Blocks
/// come in their order.
using ChunkLoss = std::function<torch::Tensor(const Block&)>;

/// The sum over all rows, a scalar in float32 (float64 for inputs in float64), with its gradient to what of `logits` learns.
/// `chunk_rows` 0: as many as fit about 64 MB of logits.
torch::Tensor chunked_sum(const LogitsOf& logits, const ChunkLoss& loss, int64_t chunk_rows = 0);

/// The log softmax of all rows, a block (n, V) at a time, in float32 or float64: `visit` may overwrite it.
void visit_log_softmax(const LogitsOf& logits, int64_t chunk_rows,
                       const std::function<void(int64_t start, torch::Tensor log_p)>& visit);

/// The log softmax of rows that are asked for in their order; the logits of a chunk are computed at once.
class LogSoftmaxOf {
 public:
  explicit LogSoftmaxOf(LogitsOf logits) : logits_(std::move(logits)) {}
  /// (n, V) of the rows of `block`, which may be overwritten.
  torch::Tensor rows(const Block& block);

 private:
  LogitsOf logits_;
  torch::Tensor chunk_;  // the logits from first_ on
  int64_t first_ = 0;
};

}  // namespace graft::nn
