// The process that graft runs in.
#pragma once

namespace graft {

/// Seconds since the process was started, loading of libraries included; to a hundredth.
double process_seconds();

}  // namespace graft
