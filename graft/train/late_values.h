// Numbers that a GPU has yet to compute, read without stopping it.
#pragma once

#include <c10/core/Event.h>
#include <torch/types.h>

#include <memory>
#include <vector>

namespace graft::train {

/// Copies scalars of a CUDA device behind what is queued there; get() waits for these alone.
class LateValues {
 public:
  explicit LateValues(const std::vector<torch::Tensor>& scalars);
  std::vector<double> get() const;

 private:
  torch::Tensor copy_;  // pinned
  std::shared_ptr<c10::Event> done_;
};

}  // namespace graft::train
