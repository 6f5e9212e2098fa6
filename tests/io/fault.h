// Sets GRAFT_TEST_FAULT for a scope, or for a child process that it may kill.
#pragma once

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <string>

namespace graft::tests {

struct Fault {
  explicit Fault(const std::string& setting) { setenv("GRAFT_TEST_FAULT", setting.c_str(), 1); }
  ~Fault() { unsetenv("GRAFT_TEST_FAULT"); }
};

/// Runs `action` in a child with the fault set. True when it ended well, false when it was killed.
template <class Action>
bool run_with_fault(const std::string& setting, Action&& action) {
  const pid_t child = fork();
  if (child == 0) {
    const Fault fault(setting);
    try {
      action();
    } catch (...) {
      _exit(1);
    }
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_TRUE(WIFSIGNALED(status) ? WTERMSIG(status) == SIGKILL : WEXITSTATUS(status) == 0) << setting;
  return WIFEXITED(status);
}

}  // namespace graft::tests
