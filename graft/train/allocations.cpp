#include "graft/train/allocations.h"

#include <c10/core/Allocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>

#include <algorithm>
#include <mutex>
#include <set>

#include "graft/models/device.h"

namespace graft::train {

struct Allocations::Counter : c10::MemoryReportingInfoBase {
  // Called from the threads that run a backward pass too.
  void reportMemoryUsage(void* address, int64_t bytes, size_t, size_t, c10::Device device) override {
    if (device.type() != models::compute_device().type()) return;
    const std::lock_guard lock(mutex);
    if (bytes > 0) mine.insert(address);
    else if (mine.erase(address) == 0) return;
    live += bytes;
    peak = std::max(peak, live);
  }
  bool memoryProfilingEnabled() const override { return true; }

  std::mutex mutex;
  std::set<void*> mine;
  int64_t live = 0, peak = 0;
};

struct Allocations::Guard {
  explicit Guard(std::shared_ptr<Counter> counter) : guard(c10::DebugInfoKind::PROFILER_STATE, std::move(counter)) {}
  c10::DebugInfoGuard guard;
};

Allocations::Allocations() : counter_(std::make_shared<Counter>()), guard_(std::make_unique<Guard>(counter_)) {}
Allocations::~Allocations() = default;

int64_t Allocations::live() const {
  const std::lock_guard lock(counter_->mutex);
  return counter_->live;
}

int64_t Allocations::peak() const {
  const std::lock_guard lock(counter_->mutex);
  return counter_->peak;
}

}  // namespace graft::train
