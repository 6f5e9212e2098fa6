// What people see while a run works: one line that is redrawn on a terminal, plain lines elsewhere.
#include "graft/report/progress.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <functional>
#include <thread>

#include "tests/fixtures.h"

namespace graft::report {
namespace {

/// What `action` writes to standard error while that is `descriptor`.
void with_stderr(int descriptor, const std::function<void()>& action) {
  std::fflush(stderr);
  const int before = dup(STDERR_FILENO);
  dup2(descriptor, STDERR_FILENO);
  action();
  std::fflush(stderr);
  dup2(before, STDERR_FILENO);
  close(before);
}

std::string on_file(const std::function<void()>& action) {
  const tests::Scratch scratch;
  const int file = open((scratch / "err").c_str(), O_WRONLY | O_CREAT, 0644);
  with_stderr(file, action);
  close(file);
  return tests::read_text(scratch / "err");
}

std::string on_terminal(const std::function<void()>& action) {
  const int ours = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK);
  EXPECT_EQ(grantpt(ours), 0);
  EXPECT_EQ(unlockpt(ours), 0);
  const int terminal = open(ptsname(ours), O_RDWR | O_NOCTTY);
  EXPECT_GE(terminal, 0);
  with_stderr(terminal, action);
  std::string text;
  char bytes[4096];
  pollfd more{ours, POLLIN, 0};
  while (poll(&more, 1, 100) == 1) {  // it arrives in pieces
    const auto size = read(ours, bytes, sizeof bytes);
    if (size <= 0) break;
    text.append(bytes, size);
  }
  close(terminal);
  close(ours);
  return text;
}

void pause(int milliseconds) { std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds)); }

struct NoColor {
  NoColor() { setenv("NO_COLOR", "1", 1); }
  ~NoColor() { unsetenv("NO_COLOR"); }
};

TEST(Progress, OnATerminalOneLineIsRedrawnWithTheTimeThatIsLeft) {
  const auto text = on_terminal([] {
    Progress progress;
    progress.step("unfreeze layer 2", 10, 100, "epoch 1/5  loss 0.5000");
    progress.step("unfreeze layer 2", 11, 100, "too early to draw again");
    pause(120);
    progress.step("unfreeze layer 2", 50, 100, "epoch 3/5  loss 0.4000  best accuracy 0.8100  120 examples/s");
    progress.line("done");
  });
  EXPECT_EQ(text.find("too early"), std::string::npos) << text;
  EXPECT_NE(text.find("\033[32m##########----------\033[0m unfreeze layer 2  50/100  epoch 3/5  loss 0.4000  best "
                      "accuracy 0.8100  120 examples/s  0 s left"),
            std::string::npos)
      << text;
  EXPECT_TRUE(text.ends_with("\r\033[Kdone\r\n")) << "the line that was drawn is wiped: " << text;
}

TEST(Progress, TheTimeLeftIsThatOfWhatIsNamedAtItsOwnSpeed) {
  const auto text = on_terminal([] {
    Progress progress;
    progress.step("captured", 1, 2);
    progress.step("full", 1000, 2000);  // a resumed phase: the first thousand cost nothing today
    pause(200);
    progress.step("full", 1001, 2000);
  });
  // 0.2 s for one step, 999 to go; a busy machine may be slower.
  const auto at = text.find("1001/2000  ");
  ASSERT_NE(at, std::string::npos) << text;
  EXPECT_GE(std::atoi(text.c_str() + at + 11), 3) << text;
  EXPECT_NE(text.find(" min left", at), std::string::npos) << text;
}

TEST(Progress, WithNoColorThereIsNone) {
  const NoColor no_color;
  const auto text = on_terminal([] {
    Progress progress;
    progress.title("Phase 1");
    progress.step("head", 1, 4);
    pause(120);
    progress.step("head", 2, 4);
    progress.line("done");
  });
  EXPECT_TRUE(text.starts_with("Phase 1\r\n")) << text;
  EXPECT_NE(text.find("##########---------- head  2/4"), std::string::npos) << text;
  EXPECT_EQ(text.find("\033[3"), std::string::npos) << text;
  EXPECT_EQ(text.find("\033[1"), std::string::npos) << text;
}

TEST(Progress, ElsewhereLinesArePlainAndFew) {
  const auto work = [](double seconds) {
    return on_file([=] {
      Progress progress(false, seconds);
      progress.title("Phase 1");
      for (int64_t step = 1; step <= 4; ++step) progress.step("head", step, 4, "loss 0.5");
      progress.line("done");
    });
  };
  EXPECT_EQ(work(15), "Phase 1\ndone\n");
  EXPECT_EQ(work(0),
            "Phase 1\nhead  2/4  loss 0.5  0 s left\nhead  3/4  loss 0.5  0 s left\nhead  4/4  loss 0.5  0 s "
            "left\ndone\n")
      << "the first step says nothing of its speed";
}

TEST(Progress, QuietIsQuiet) {
  EXPECT_EQ(on_file([] {
              Progress progress(true, 0);
              progress.title("Phase 1");
              progress.step("head", 1, 4);
              progress.step("head", 2, 4);
              progress.line("done");
            }),
            "");
}

}  // namespace
}  // namespace graft::report
