#include "graft/models/autocast.h"

#include <ATen/autocast_mode.h>

namespace graft::models {

Autocast::Autocast(torch::Device device, bool on)
    : device_(device.type()), on_(on && !at::autocast::is_autocast_enabled(device_)) {
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

}  // namespace graft::models
