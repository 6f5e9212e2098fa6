// Work on independent items on several threads.
#pragma once

#include <cstdint>
#include <functional>

namespace graft {

/// Calls work(0), ..., work(count - 1) on at most `threads` threads, in any order. When some throw, the exception of the
/// lowest item is thrown again after all have ended, so that messages do not depend on the number of threads.
void parallel_for(int64_t count, int64_t threads, const std::function<void(int64_t)>& work);

}  // namespace graft
