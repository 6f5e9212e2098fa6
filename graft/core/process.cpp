#include "graft/core/process.h"

#include <time.h>
#include <unistd.h>

#include <fstream>
#include <sstream>
#include <string>

namespace graft {

double process_seconds() {
  std::ifstream file("/proc/self/stat");
  std::string text, field;
  std::getline(file, text);
  // proc(5): the name of the program, in brackets, may hold blanks; starttime is field 22, the 20th behind it.
  const auto behind_name = text.rfind(')');
  if (behind_name == std::string::npos) return 0;
  std::istringstream fields(text.substr(behind_name + 1));
  for (int i = 0; i < 20; ++i) fields >> field;
  timespec now{};
  ::clock_gettime(CLOCK_BOOTTIME, &now);
  return static_cast<double>(now.tv_sec) + now.tv_nsec / 1e9 - std::stod(field) / ::sysconf(_SC_CLK_TCK);
}

uint64_t peak_memory() {
  uint64_t peak = 0, mapped = 0;
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmHWM:")) peak = std::stoull(line.substr(6)) * 1024;
    if (line.starts_with("RssFile:")) mapped = std::stoull(line.substr(8)) * 1024;
  }
  return peak > mapped ? peak - mapped : 0;
}

void reset_peak_memory() { std::ofstream("/proc/self/clear_refs") << "5"; }  // proc(5)

}  // namespace graft
