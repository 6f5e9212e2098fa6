// How far a model has moved from another one, on examples that need no labels.
// Paper:  Kornblith et al. 2019, https://arxiv.org/abs/1905.00414, sec. 3 (linear CKA).
// Shapes:  n examples, C channels.
#pragma once

#include "graft/features/inputs.h"
#include "graft/models/model.h"

namespace graft::retain {

using models::Tensor;

/// 1 when one is a rotation, a scaling or a shift of the other; 0 when nothing is shared. x, y (n, C).
double linear_cka(const Tensor& x, const Tensor& y);

/// What a model makes of examples: `features` (n, C), the mean of the last block's rows of each; `choices` (n or more)
/// the largest output of each of the head's rows, undefined for a head without.
struct Seen {
  Tensor features, choices;
};
/// In evaluation mode, without gradient; some `rows` at a time.
Seen observe(models::Model& model, const features::Inputs& inputs, const std::vector<int64_t>& examples,
             int64_t rows = 4096);

/// Part of the rows in which both chose alike.
double agreement(const Tensor& choices, const Tensor& others);

/// While it lives, the blocks of `probe`, a model of the same family with a head of its own, are `model`'s, and with `head`
/// its head too: the same memory, not a copy. The probe then judges what the model's blocks still know. Afterwards its own
/// weights are back.
class BorrowedBlocks {
 public:
  /// Throws Kind::model when a tensor of the blocks is missing or of another shape: the probe would be a mixture of two
  /// models, and its numbers nobody's.
  BorrowedBlocks(models::Model& probe, const models::Model& model, bool head);
  ~BorrowedBlocks();
  BorrowedBlocks(const BorrowedBlocks&) = delete;
  BorrowedBlocks& operator=(const BorrowedBlocks&) = delete;

 private:
  std::vector<std::pair<Tensor, Tensor>> own_;  // of the probe: the parameter, and what it held
};

/// Gives back the memory of what `probe` would borrow of `model`; its shape stays, its values are 0.
void release_blocks(models::Model& probe, const models::Model& model, bool head);

}  // namespace graft::retain
