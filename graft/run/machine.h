// What a process takes of the machine: threads, device, and kernels that give the same bits each time.
#pragma once

#include <cstdint>
#include <string>

namespace graft::run {

/// `threads` 0: as many as the machine or the container really has. `device`: as models::compute_on().
/// Throws Kind::usage: the device cannot be had.
void use_machine(int64_t threads, const std::string& device);

}  // namespace graft::run
