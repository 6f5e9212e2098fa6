#include "graft/data/ragged.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>

#include "graft/core/error.h"
#include "tests/fixtures.h"

namespace graft::data {
namespace {

std::string row_of(int i) { return std::string(i % 97, static_cast<char>('a' + i % 26)); }

void expect_rows(const Ragged<char>& rows, int count) {
  ASSERT_EQ(rows.size(), count);
  for (int i = 0; i < count; ++i) ASSERT_EQ(rows.text(i), row_of(i)) << i;
}

TEST(Ragged, KeepsRowsInMemoryAndInAFile) {
  for (const uint64_t limit : {uint64_t{256} << 20, uint64_t{1000}, uint64_t{0}}) {
    Ragged<char> rows(limit);
    for (int i = 0; i < 60'000; ++i) rows.push_back(row_of(i));  // 2.9 MB: the file grows more than once
    expect_rows(rows, 60'000);
    const auto copy = rows;
    expect_rows(copy, 60'000);
  }
}

TEST(Ragged, KeepsNumbersAndEmptyRows) {
  Ragged<int32_t> rows(8);
  EXPECT_TRUE(rows.empty());
  rows.push_back(std::vector<int32_t>{});
  rows.push_back(std::vector<int32_t>{1, -2, 3});
  rows.push_back(std::vector<int32_t>{});
  EXPECT_EQ(rows.length(0), 0);
  EXPECT_EQ(rows[1][1], -2);
  EXPECT_EQ(rows.length(2), 0);
  EXPECT_EQ(rows.total(), 3u);
}

TEST(Ragged, ACopyThatSharesTheFileIsNotAppendedTo) {
  Ragged<char> rows(0);
  rows.push_back(std::string("a"));
  auto copy = rows;
  EXPECT_NE(tests::message_of([&] { copy.push_back(std::string("b")); }).find("shares its file"), std::string::npos);
}

TEST(Ragged, NamesTheFolderThatIsFull) {
  rlimit before;
  getrlimit(RLIMIT_FSIZE, &before);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{4096, before.rlim_max};
  setrlimit(RLIMIT_FSIZE, &small);
  const auto message = tests::message_of([&] {
    Ragged<char> rows(10);
    rows.push_back(std::string(100'000, 'x'));
  });
  setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  EXPECT_NE(message.find("bytes for rows that do not fit in memory cannot be reserved there"), std::string::npos)
      << message;
  EXPECT_NE(message.find("set TMPDIR to a folder that has it"), std::string::npos) << message;
}

TEST(Ragged, NamesAFolderWithoutRoomForFiles) {
  const char* before = std::getenv("TMPDIR");
  const std::string kept = before ? before : "";
  tests::Scratch scratch;
  setenv("TMPDIR", (scratch / "gone").c_str(), 1);
  const auto message = tests::message_of([&] { Ragged<char>(0).push_back(std::string("x")); });
  before ? setenv("TMPDIR", kept.c_str(), 1) : unsetenv("TMPDIR");
  EXPECT_NE(message.find("there is no folder for temporary files"), std::string::npos) << message;
}

}  // namespace
}  // namespace graft::data
