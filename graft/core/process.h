// The process that graft runs in.
#pragma once

#include <cstdint>

namespace graft {

/// Seconds since the process was started, loading of libraries included; to a hundredth.
double process_seconds();

/// What the process needed at its peak, mapped files apart, in bytes (Linux; 0 elsewhere).
uint64_t peak_memory();
/// From now on peak_memory() is of what comes.
void reset_peak_memory();

}  // namespace graft
