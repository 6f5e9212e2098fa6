// SIGINT and SIGTERM finish the step and commit; a second one leaves at once.
#pragma once

#include <exception>

namespace graft {

/// Thrown where work stops because of a signal; what is committed stays.
struct Interrupted : std::exception {
  explicit Interrupted(int signal) : signal(signal) {}
  const char* what() const noexcept override { return "interrupted"; }
  int signal;
};

void watch_signals();
/// The signal that arrived, 0 when none did.
int pending_signal();
/// Throws Interrupted when a signal has arrived.
void stop_if_interrupted();

}  // namespace graft
