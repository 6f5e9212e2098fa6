#include "graft/nn/autocast.h"

#include <ATen/autocast_mode.h>

namespace graft::nn {

Autocast::Autocast(torch::Device device, bool on) : device_(device.type()), on_(on && !under_autocast(device)) {
  if (!on_) return;
  at::autocast::set_autocast_enabled(device_, true);
  at::autocast::set_autocast_dtype(device_, torch::kBFloat16);
}

Autocast::~Autocast() {
  if (!on_) return;
  at::autocast::clear_cache();
  at::autocast::set_autocast_enabled(device_, false);
}

bool under_autocast(torch::Device device) { return at::autocast::is_autocast_enabled(device.type()); }

torch::Tensor widened(const torch::Tensor& x) {
  return x.scalar_type() == torch::kBFloat16 ? x.to(torch::kFloat32) : x;
}

}  // namespace graft::nn
