// Products in bfloat16 where the operations allow it, everything else in float32: libtorch's autocast.
#pragma once

#include <torch/types.h>

namespace graft::nn {

/// Autocast to bfloat16 on a device while it lives, if `on` and not on already. Micikevicius et al. 2018,
/// https://arxiv.org/abs/1710.03740, sec. 3, without their scaling of the loss: bfloat16 has float32's exponents.
class Autocast {
 public:
  Autocast(torch::Device device, bool on);
  ~Autocast();
  Autocast(const Autocast&) = delete;
  Autocast& operator=(const Autocast&) = delete;

 private:
  torch::DeviceType device_;
  bool on_;  // by this one
};

/// Whether an Autocast lives for this device.
bool under_autocast(torch::Device device);

/// x, of bfloat16 as float32: for sums that autocast leaves short.
torch::Tensor widened(const torch::Tensor& x);

}  // namespace graft::nn
