// The process that graft runs in.
#pragma once

#include <cstdint>

namespace graft {

/// Seconds since the process was started, loading of libraries included; to a hundredth.
double process_seconds();

/// What the process needed at its peak, mapped files apart, in bytes (Linux; 0 elsewhere).
uint64_t peak_memory();
/// Gives back what was freed, which tcmalloc, the programs' allocator, keeps and held_memory() counts. Does nothing where
/// another allocator stands.
void release_freed_memory();
/// From now on peak_memory() is of what comes; what was freed is given back.
void reset_peak_memory();
/// What the process holds now, mapped files apart, in bytes.
uint64_t held_memory();
/// What it may still take, in bytes: the machine's MemAvailable, or what its control group (version 2 or 1) leaves, whichever
/// is less; UINT64_MAX where nothing tells. GRAFT_TEST_MEMORY=<bytes> says it for tests.
uint64_t available_memory();

}  // namespace graft
