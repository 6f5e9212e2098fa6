#include "graft/io/commit.h"

#include <gtest/gtest.h>

#include "graft/core/error.h"
#include "graft/core/hash.h"
#include "graft/io/safetensors.h"
#include "tests/fixtures.h"
#include "tests/io/fault.h"

namespace graft::io {
namespace {

using namespace tests;

TensorMap one_tensor(char value) {
  const auto owner = std::make_shared<std::string>(100, value);
  return {{"w", {DType::u8, {100}, {1}, owner->data(), owner, owner->data()}}};
}

std::map<std::string, Content> files(uint64_t index) {
  return {{"model.safetensors", one_tensor(static_cast<char>('a' + index % 20))},
          {"optimizer.bin", std::string("moments ") + std::to_string(index)}};
}

void write(CommittedFolders& folders, uint64_t index) { folders.write(index, files(index), {{"epoch", index}}); }

std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

TEST(CommittedFolders, TheNewestIsFoundAndTheOldestGo) {
  const Scratch scratch;
  CommittedFolders folders(scratch / "checkpoints");
  EXPECT_FALSE(folders.latest().found);
  for (uint64_t index = 8; index <= 11; ++index) write(folders, index);
  const auto latest = folders.latest();
  ASSERT_TRUE(latest.found);
  EXPECT_EQ(latest.found->index, 11u);
  EXPECT_EQ(latest.found->state["epoch"], 11);
  EXPECT_TRUE(latest.skipped.empty());
  EXPECT_EQ(read_text(latest.found->path / "optimizer.bin"), "moments 11");
  EXPECT_EQ(read_safetensors(latest.found->path / "model.safetensors").tensors.at("w").data[99], 'a' + 11);
  EXPECT_EQ(names_in(scratch / "checkpoints"), (std::vector<std::string>{"000010", "000011"}));
}

TEST(CommittedFolders, ABrokenOneIsSkippedWithAReasonAndReplaced) {
  const Scratch scratch;
  CommittedFolders folders(scratch / "checkpoints", 10);
  for (uint64_t index = 1; index <= 7; ++index) write(folders, index);
  const auto at = [&](const std::string& name) { return scratch / "checkpoints" / name; };
  fs::remove(at("000007/COMMITTED"));
  fs::remove(at("000006/optimizer.bin"));
  write_text(at("000005/optimizer.bin"), "momentz 5");
  write_text(at("000004/optimizer.bin"), "short");
  write_text(at("000003/manifest.json"), "{}");
  write_text(at("000002/manifest.json"), "{}");
  write_text(at("000002/COMMITTED"), sha256("{}"));
  const auto latest = folders.latest();
  ASSERT_TRUE(latest.found);
  EXPECT_EQ(latest.found->index, 1u);
  const auto sentence = [&](const char* name, const std::string& reason) {
    return fmt::format("checkpoint {} is not complete and is skipped: {}", name, reason);
  };
  ASSERT_EQ(latest.skipped.size(), 6u);
  EXPECT_EQ(latest.skipped[0], sentence("000007", at("000007").string() + ": the marker COMMITTED is missing"));
  EXPECT_EQ(latest.skipped[1], sentence("000006", at("000006/optimizer.bin").string() + ": missing"));
  EXPECT_EQ(latest.skipped[2],
            sentence("000005", fmt::format("{}: its content changed since it was written (SHA-256 is not {})",
                                           at("000005/optimizer.bin").string(), sha256("moments 5"))));
  EXPECT_EQ(latest.skipped[3], sentence("000004", at("000004/optimizer.bin").string() + ": expected 9 bytes, found 5"));
  EXPECT_EQ(latest.skipped[4],
            sentence("000003", at("000003/manifest.json").string() + ": its content changed since it was written"));
  EXPECT_TRUE(latest.skipped[5].starts_with(sentence("000002", "its manifest is damaged ("))) << latest.skipped[5];
  write(folders, 7);
  EXPECT_EQ(folders.latest().found->index, 7u);
}

TEST(CommittedFolders, AKillAtAnyOperationLeavesACompleteCheckpoint) {
  const Scratch scratch;
  int n = 0;
  bool survived = false;
  while (!survived) {
    ASSERT_LT(++n, 200);
    io::remove_all(scratch / "checkpoints");
    CommittedFolders folders(scratch / "checkpoints");
    for (uint64_t index = 1; index <= 2; ++index) write(folders, index);
    survived = run_with_fault(fmt::format("kill:{}", n), [&] { write(folders, 3); });
    const auto latest = folders.latest();
    ASSERT_TRUE(latest.found) << n;
    EXPECT_TRUE(latest.skipped.empty()) << n << ": " << latest.skipped[0];
    EXPECT_TRUE(latest.found->index == 3 || (!survived && latest.found->index == 2)) << n;
    EXPECT_EQ(latest.found->state["epoch"], latest.found->index);
    folders.sweep();
    for (const auto& name : names_in(scratch / "checkpoints")) EXPECT_EQ(name.size(), 6u) << n << ": " << name;
    write(folders, 3);
    EXPECT_EQ(names_in(scratch / "checkpoints"), (std::vector<std::string>{"000002", "000003"})) << n;
  }
  EXPECT_GT(n, 20);
}

TEST(CommittedFolders, AKillInALoopOfWritesLosesNothing) {
  const Scratch scratch;
  bool survived = false;
  for (int n = 1; !survived; n += 7) {
    ASSERT_LT(n, 1000);
    io::remove_all(scratch / "checkpoints");
    CommittedFolders folders(scratch / "checkpoints");
    write(folders, 1);
    survived = run_with_fault(fmt::format("kill:{}", n), [&] {
      for (uint64_t index = 2; index <= 6; ++index) write(folders, index);
    });
    const auto latest = folders.latest();
    ASSERT_TRUE(latest.found) << n;
    EXPECT_TRUE(latest.skipped.empty()) << n;
    EXPECT_EQ(read_text(latest.found->path / "optimizer.bin"), fmt::format("moments {}", latest.found->index));
  }
}

TEST(CommittedFolders, AFullDiskAtEachOperationIsASentence) {
  const Scratch scratch;
  std::string message = "begin";
  int n = 0;
  while (!message.empty()) {
    ASSERT_LT(++n, 200);
    io::remove_all(scratch / "checkpoints");
    CommittedFolders folders(scratch / "checkpoints");
    for (uint64_t index = 1; index <= 2; ++index) write(folders, index);
    {
      const Fault fault(fmt::format("enospc:{}", n));
      message = message_of([&] { write(folders, 3); });
    }
    EXPECT_TRUE(message.empty() || message.find("No space left on device; free space in ") != std::string::npos)
        << message;
    const auto latest = folders.latest();
    ASSERT_TRUE(latest.found) << n;
    EXPECT_TRUE(latest.skipped.empty()) << n;
    EXPECT_GE(latest.found->index, 2u);
  }
  EXPECT_GT(n, 20);
}

TEST(CommittedFolders, NamesOfItsOwnAreRefused) {
  const Scratch scratch;
  CommittedFolders folders(scratch / "checkpoints");
  EXPECT_NE(message_of([&] {
              folders.write(1, {{"COMMITTED", std::string()}}, {});
            }).find("a file named COMMITTED"),
            std::string::npos);
  EXPECT_NE(message_of([&] {
              folders.write(1, {{"a/b", std::string()}}, {});
            }).find("a file named a/b"),
            std::string::npos);
}

}  // namespace
}  // namespace graft::io
