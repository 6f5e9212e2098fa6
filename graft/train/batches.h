// Which examples share a batch: of like length, in an order that is random and a function of the seed alone.
#pragma once

#include <vector>

#include "graft/train/stream.h"

namespace graft::train {

/// One epoch: a permutation of all examples in pools of 50 batches, each pool sorted by rows, cut into batches of
/// `batch_size`, the batches shuffled. Within a batch examples are ascending by rows. Every example occurs once.
std::vector<std::vector<int64_t>> epoch_batches(const Stream& stream, int64_t batch_size, uint64_t seed);

/// A batch cut where it would exceed `rows`; each part has at least one example.
std::vector<std::vector<int64_t>> micro_batches(const Stream& stream, const std::vector<int64_t>& batch, int64_t rows);

/// All examples, ascending by rows, in batches of at most `rows`, for evaluation.
std::vector<std::vector<int64_t>> batches_by_rows(const Stream& stream, int64_t rows);

}  // namespace graft::train
