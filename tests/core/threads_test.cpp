// How many cores a container really grants.
#include "graft/core/threads.h"

#include <gtest/gtest.h>

#include <thread>

#include "tests/fixtures.h"

namespace graft {
namespace {

TEST(Threads, TheQuotaIsThatOfTheControlGroup) {
  const tests::Scratch root;
  EXPECT_EQ(cpu_quota(root.path), 0) << "no control groups";
  tests::write_text(root / "cpu/cpu.cfs_quota_us", "-1\n");
  tests::write_text(root / "cpu/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(cpu_quota(root.path), 0) << "version 1 without a limit";
  tests::write_text(root / "cpu/cpu.cfs_quota_us", "150000\n");
  EXPECT_EQ(cpu_quota(root.path), 1.5);
  tests::write_text(root / "cpu.max", "max 100000\n");
  EXPECT_EQ(cpu_quota(root.path), 1.5) << "version 2 without a limit leaves version 1's";
  tests::write_text(root / "cpu.max", "400000 100000\n");
  EXPECT_EQ(cpu_quota(root.path), 4);
}

TEST(Threads, AtLeastOneCoreAndNoMoreThanTheMachineHas) {
  EXPECT_GE(available_cores(), 1);
  EXPECT_LE(available_cores(), static_cast<int64_t>(std::thread::hardware_concurrency()));
}

}  // namespace
}  // namespace graft
