// One penalty beside the task loss (graft/retain). Terms are summed and never see each other.
#pragma once

#include "graft/train/stream.h"

namespace graft::train {

struct Step {
  models::Model& model;
  const std::vector<int64_t>& examples;
  const Outputs& outputs;
  uint64_t epoch;
};

struct LossTerm {
  virtual ~LossTerm() = default;
  /// A scalar, a mean where it is of examples; added once a step, with the weight that the term itself applies. A step
  /// computed in parts adds each part's value by its share of the loss's items.
  virtual Tensor value(const Step& step) = 0;
};

}  // namespace graft::train
