#include "graft/train/late_values.h"

#include <ATen/DeviceAccelerator.h>

namespace graft::train {

LateValues::LateValues(const std::vector<torch::Tensor>& scalars) {
  std::vector<torch::Tensor> values;
  for (const auto& scalar : scalars) values.push_back(scalar.to(torch::kFloat32));
  const auto there = torch::stack(values);
  copy_ = torch::empty(there.sizes(), torch::TensorOptions().dtype(torch::kFloat32).pinned_memory(true));
  copy_.copy_(there, /*non_blocking=*/true);
  done_ = std::make_shared<c10::Event>(there.device().type());
  done_->record(at::accelerator::getCurrentStream(there.device().index()));
}

std::vector<double> LateValues::get() const {
  done_->synchronize();
  const auto* at = copy_.const_data_ptr<float>();
  return {at, at + copy_.numel()};
}

}  // namespace graft::train
