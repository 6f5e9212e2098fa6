#include "graft/core/threads.h"

#include <sched.h>

#include <algorithm>
#include <cmath>
#include <fstream>

namespace graft {

double cpu_quota(const std::filesystem::path& root) {
  double microseconds = 0, period = 0;
  if (std::ifstream v2(root / "cpu.max"); v2 >> microseconds >> period && period > 0)  // "max 100000": no number
    return microseconds / period;
  std::ifstream v1(root / "cpu/cpu.cfs_quota_us"), v1_period(root / "cpu/cpu.cfs_period_us");
  if (v1 >> microseconds && v1_period >> period && microseconds > 0 && period > 0) return microseconds / period;
  return 0;
}

int64_t available_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  int64_t cores = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
  if (const double q = cpu_quota(); q > 0) cores = std::min(cores, std::max<int64_t>(1, std::llround(q)));
  return std::max<int64_t>(1, cores);
}

}  // namespace graft
