// How many cores this process really has: the affinity mask and the container's quota, not the machine's count.
#pragma once

#include <cstdint>
#include <filesystem>

namespace graft {

int64_t available_cores();

/// Cores that the control group below `root` grants (version 2's cpu.max, else version 1's cfs quota); 0: no limit.
double cpu_quota(const std::filesystem::path& root = "/sys/fs/cgroup");

}  // namespace graft
