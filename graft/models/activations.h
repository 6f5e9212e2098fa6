// What flows along a chain of blocks.
// Shapes:  B examples, N = sum of lengths over the examples.
#pragma once

#include <torch/types.h>

#include <map>
#include <string>
#include <vector>

namespace graft::models {

using torch::Tensor;

/// Rows of all examples, one after another: tokens (N, C), ids (N), feature maps (B, C, H, W) with lengths of 1.
struct Rows {
  Tensor values;
  std::vector<int64_t> lengths;  // rows per example
};

struct Activations {
  Rows hidden;
  std::map<std::string, Rows>
      kept;  // slots: inputs, skips, early states; written once, read later, stored with `hidden`
  std::map<std::string, Tensor>
      shared;  // of the model, with gradient (a table that every block reads): recomputed, never stored
};

/// At which positions a head reads the last block, and with it where that block is computed at all.
struct Reads {
  enum class Where { all, first, last, listed };
  Where where = Where::all;
  /// For `listed`: rows among the N of the batch, ascending, and how many of them each example has.
  Tensor index = {};
  std::vector<int64_t> lengths = {};
};

/// `reads` for a batch: `index` (M) of the rows to compute, undefined for all of them; `lengths` per example.
struct ReadIndex {
  Tensor index;
  std::vector<int64_t> lengths;
};
ReadIndex resolve(const Reads& reads, const std::vector<int64_t>& lengths, torch::Device device);

/// (B, C), of bfloat16 in float32: the mean over each example's rows (N, C), or over the places of maps (B, C, H, W).
/// 0 for an example without rows.
Tensor mean_of(const Rows& rows);

/// The examples `order[0], order[1], ...` of the rows.
Rows select(const Rows& rows, const std::vector<int64_t>& order);

}  // namespace graft::models
