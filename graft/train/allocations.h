// How much memory tensors take while a piece of work runs, counted by the allocator: for what no formula tells, the
// activations that a step keeps for its gradient.
#pragma once

#include <cstdint>
#include <memory>

namespace graft::train {

/// Counts what this thread allocates and frees on the device that models compute on while it lives; what was there before does not count.
class Allocations {
 public:
  Allocations();
  ~Allocations();
  Allocations(const Allocations&) = delete;
  Allocations& operator=(const Allocations&) = delete;
  int64_t live() const;  // bytes now
  int64_t peak() const;  // bytes at most

 private:
  struct Counter;
  struct Guard;
  std::shared_ptr<Counter> counter_;
  std::unique_ptr<Guard> guard_;
};

}  // namespace graft::train
