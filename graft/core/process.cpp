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

}  // namespace graft
