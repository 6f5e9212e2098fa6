#include "graft/core/process.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <thread>
#include <vector>

namespace graft {
namespace {

TEST(Process, TellsHowLongItRuns) {
  const double before = process_seconds();
  EXPECT_GE(before, 0);
  EXPECT_LT(before, 3600);
  std::this_thread::sleep_for(std::chrono::milliseconds(60));
  EXPECT_NEAR(process_seconds() - before, 0.06, 0.05);
}

TEST(Process, TellsWhatItHoldsAndWhatIsLeft) {
  const auto before = held_memory();
  const std::vector<char> bytes(64 << 20, 1);
  EXPECT_GT(held_memory(), before + (60 << 20));
  EXPECT_LT(held_memory(), before + (80 << 20));
  EXPECT_GT(available_memory(), uint64_t{1} << 20);
  ::setenv("GRAFT_TEST_MEMORY", "123", 1);
  EXPECT_EQ(available_memory(), 123u);
  ::unsetenv("GRAFT_TEST_MEMORY");
}

#ifndef __SANITIZE_ADDRESS__  // whose allocator keeps freed memory
TEST(Process, GivesBackWhatWasFreed) {
  const auto before = held_memory();
  { const std::vector<std::vector<char>> blocks(256, std::vector<char>(1 << 20, 1)); }
  release_freed_memory();
  EXPECT_LT(held_memory(), before + (8 << 20));
}
#endif

}  // namespace
}  // namespace graft
