#include "graft/core/process.h"

#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>

/// gperftools/malloc_extension_c.h declares it too, but not weak: only programs link tcmalloc, not the engine.
extern "C" __attribute__((weak)) void MallocExtension_ReleaseFreeMemory();

namespace graft {
namespace {

/// The number behind a word at the beginning of a line; 0 when there is none.
uint64_t number_behind(const std::string& file, const std::string& word) {
  std::ifstream lines(file);
  for (std::string line; std::getline(lines, line);)
    if (line.starts_with(word)) return std::strtoull(line.c_str() + word.size(), nullptr, 10);
  return 0;
}

uint64_t number_in(const std::string& file) {
  uint64_t value = 0;
  std::ifstream(file) >> value;  // "max" leaves 0
  return value;
}

/// A limit, what is used of it, and how much of that are pages of files that can go.
uint64_t left(uint64_t limit, uint64_t used, uint64_t reclaimable) {
  if (limit == 0 || limit > (uint64_t{1} << 60)) return UINT64_MAX;  // version 1 writes a large number for no limit
  const auto needed = used > reclaimable ? used - reclaimable : 0;
  return limit > needed ? limit - needed : 0;
}

uint64_t left_in_control_group() {
  const std::string v2 = "/sys/fs/cgroup/", v1 = "/sys/fs/cgroup/memory/";
  if (std::ifstream(v2 + "memory.max"))
    return left(number_in(v2 + "memory.max"), number_in(v2 + "memory.current"),
                number_behind(v2 + "memory.stat", "inactive_file "));
  return left(number_in(v1 + "memory.limit_in_bytes"), number_in(v1 + "memory.usage_in_bytes"),
              number_behind(v1 + "memory.stat", "total_inactive_file "));
}

}  // namespace

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

uint64_t held_memory() {
  return 1024 * (number_behind("/proc/self/status", "RssAnon:") + number_behind("/proc/self/status", "RssShmem:"));
}

uint64_t available_memory() {
  if (const char* said = std::getenv("GRAFT_TEST_MEMORY")) return std::strtoull(said, nullptr, 10);
  const auto free = 1024 * number_behind("/proc/meminfo", "MemAvailable:");
  return std::min(free > 0 ? free : UINT64_MAX, left_in_control_group());
}

void release_freed_memory() {
  if (MallocExtension_ReleaseFreeMemory) MallocExtension_ReleaseFreeMemory();
}

void reset_peak_memory() {
  release_freed_memory();
  std::ofstream("/proc/self/clear_refs") << "5";  // proc(5)
}

}  // namespace graft
