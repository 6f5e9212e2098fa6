#include "graft/core/parallel.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace graft {

void parallel_for(int64_t count, int64_t threads, const std::function<void(int64_t)>& work) {
  std::atomic<int64_t> next{0};
  std::mutex mutex;
  std::exception_ptr problem;
  int64_t problem_item = count;
  const auto labour = [&] {
    for (int64_t i = next++; i < count; i = next++) {
      try {
        work(i);
      } catch (...) {
        const std::lock_guard lock(mutex);
        if (i < problem_item) problem_item = i, problem = std::current_exception();
      }
    }
  };
  std::vector<std::thread> others;
  for (int64_t t = 1; t < std::min(threads, count); ++t) others.emplace_back(labour);
  labour();
  for (auto& thread : others) thread.join();
  if (problem) std::rethrow_exception(problem);
}

}  // namespace graft
