// Progress on standard error: one line that is redrawn on a terminal, plain lines elsewhere. NO_COLOR is honoured.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace graft::report {

class Progress {
 public:
  /// `quiet`: nothing at all (--json with a machine at the other end still gets lines unless quiet).
  /// `plain_seconds`: off a terminal, the time between two lines of one piece of work.
  explicit Progress(bool quiet = false, double plain_seconds = 15);

  /// `done` of `total` steps of what is named: a phase with all its epochs. The time left is that of all of them, as fast
  /// as since the first call with this name. Redraws at most ten times a second; off a terminal every `plain_seconds`.
  void step(const std::string& name, int64_t done, int64_t total, const std::string& facts = "");
  /// Ends the redrawn line and prints a line of its own.
  void line(const std::string& text);
  /// A heading.
  void title(const std::string& text);

 private:
  using Clock = std::chrono::steady_clock;
  void clear();
  bool quiet_, terminal_, color_;
  double plain_seconds_;
  std::string name_;
  Clock::time_point started_, drawn_;
  int64_t first_done_ = 0;
  bool open_ = false;
};

}  // namespace graft::report
