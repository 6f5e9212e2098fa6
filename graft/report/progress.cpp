#include "graft/report/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

namespace graft::report {
namespace {

std::string duration(double seconds) {
  const auto s = static_cast<int64_t>(seconds);
  if (s < 60) return fmt::format("{} s", s);
  if (s < 3600) return fmt::format("{}:{:02} min", s / 60, s % 60);
  return fmt::format("{}:{:02} h", s / 3600, s / 60 % 60);
}

}  // namespace

Progress::Progress(bool quiet, double plain_seconds)
    : quiet_(quiet),
      terminal_(isatty(STDERR_FILENO) == 1),
      color_(terminal_ && !std::getenv("NO_COLOR")),
      plain_seconds_(plain_seconds) {}

void Progress::clear() {
  if (open_) std::fputs("\r\033[K", stderr);
  open_ = false;
}

void Progress::step(const std::string& name, int64_t done, int64_t total, const std::string& facts) {
  if (quiet_ || total <= 0) return;
  const auto now = Clock::now();
  if (name != name_) {
    name_ = name;
    started_ = drawn_ = now;
    first_done_ = done;
    if (!terminal_) return;
  }
  const double since = std::chrono::duration<double>(now - drawn_).count();
  if (since < (terminal_ ? 0.1 : plain_seconds_)) return;
  drawn_ = now;
  const double elapsed = std::chrono::duration<double>(now - started_).count();
  const double left = done > first_done_ ? elapsed / (done - first_done_) * (total - done) : 0;
  const auto text =
      fmt::format("{}  {}/{}{}{}  {} left", name, done, total, facts.empty() ? "" : "  ", facts, duration(left));
  if (!terminal_) {
    fmt::print(stderr, "{}\n", text);
    return;
  }
  constexpr int kWidth = 20;
  const auto filled = static_cast<int>(kWidth * done / total);
  clear();
  fmt::print(stderr, "{}{}{} {}", color_ ? "\033[32m" : "",
             std::string(filled, '#') + std::string(kWidth - filled, '-'), color_ ? "\033[0m" : "", text);
  std::fflush(stderr);
  open_ = true;
}

void Progress::line(const std::string& text) {
  if (quiet_) return;
  clear();
  fmt::print(stderr, "{}\n", text);
}

void Progress::title(const std::string& text) {
  if (quiet_) return;
  clear();
  fmt::print(stderr, "{}{}{}\n", color_ ? "\033[1m" : "", text, color_ ? "\033[0m" : "");
}

}  // namespace graft::report
