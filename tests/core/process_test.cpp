#include "graft/core/process.h"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>

namespace graft {
namespace {

TEST(Process, TellsHowLongItRuns) {
  const double before = process_seconds();
  EXPECT_GE(before, 0);
  EXPECT_LT(before, 3600);
  std::this_thread::sleep_for(std::chrono::milliseconds(60));
  EXPECT_NEAR(process_seconds() - before, 0.06, 0.05);
}

}  // namespace
}  // namespace graft
