#include "graft/core/interrupt.h"

#include <unistd.h>

#include <csignal>

namespace graft {
namespace {

volatile std::sig_atomic_t arrived = 0;

void on_signal(int signal) {
  if (arrived) _exit(128 + signal);
  arrived = signal;
  constexpr char kSentence[] = "\nfinishing this step, then saving (once more to leave at once)\n";
  [[maybe_unused]] const auto written = ::write(STDERR_FILENO, kSentence, sizeof kSentence - 1);
}

}  // namespace

void watch_signals() {
  std::signal(SIGINT, on_signal);
  std::signal(SIGTERM, on_signal);
}

int pending_signal() { return arrived; }

void stop_if_interrupted() {
  if (arrived) throw Interrupted(arrived);
}

}  // namespace graft
