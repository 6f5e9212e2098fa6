#include "graft/core/threads.h"

#include <sched.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <string>

namespace graft {
namespace {

/// Cores that control groups allow (version 2, else version 1); 0 when there is no limit.
double quota() {
  std::string limit;
  double period = 0;
  if (std::ifstream v2("/sys/fs/cgroup/cpu.max"); v2 >> limit >> period && limit != "max" && period > 0)
    return std::stod(limit) / period;
  double microseconds = 0;
  std::ifstream v1("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), v1_period("/sys/fs/cgroup/cpu/cpu.cfs_period_us");
  if (v1 >> microseconds && v1_period >> period && microseconds > 0 && period > 0) return microseconds / period;
  return 0;
}

}  // namespace

int64_t available_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  int64_t cores = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
  if (const double q = quota(); q > 0) cores = std::min(cores, std::max<int64_t>(1, std::llround(q)));
  return std::max<int64_t>(1, cores);
}

}  // namespace graft
