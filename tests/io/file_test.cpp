#include "graft/io/file.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/fixtures.h"
#include "tests/io/fault.h"

namespace graft::io {
namespace {

using tests::Fault;
using tests::message_of;
using tests::read_text;
using tests::run_with_fault;
using tests::Scratch;
using tests::write_text;

size_t entries_in(const fs::path& folder) {
  return std::distance(fs::directory_iterator(folder), fs::directory_iterator());
}

TEST(MappedFile, ShowsTheBytesAndAnEmptyFile) {
  const Scratch scratch;
  write_text(scratch / "a", "hello");
  write_text(scratch / "empty", "");
  EXPECT_EQ(MappedFile(scratch / "a").bytes(), "hello");
  EXPECT_EQ(MappedFile(scratch / "empty").bytes(), "");
}

TEST(MappedFile, WritableCopiesAreApartFromTheFileAndFromEachOther) {
  const Scratch scratch;
  write_text(scratch / "a", "hello");
  auto file = std::make_unique<MappedFile>(scratch / "a");
  const auto one = file->writable_copy(), other = file->writable_copy();
  one.get()[0] = 'j';
  EXPECT_EQ(std::string(one.get(), 5), "jello");
  EXPECT_EQ(std::string(other.get(), 5), "hello");
  EXPECT_EQ(file->bytes(), "hello");
  write_file(scratch / "a", "other");  // renamed to its place
  EXPECT_EQ(std::string(file->writable_copy().get(), 5), "hello");
  file.reset();
  EXPECT_EQ(std::string(one.get(), 5), "jello");
}

TEST(MappedFile, AMissingFileAndAFolderAreRefused) {
  const Scratch scratch;
  EXPECT_EQ(message_of([&] { MappedFile(scratch / "nothing"); }),
            (scratch / "nothing").string() + ": cannot read it: No such file or directory");
  EXPECT_EQ(message_of([&] { MappedFile{scratch.path}; }), scratch.path.string() + ": cannot read it: Is a directory");
  EXPECT_EQ(message_of([&] { read_file(scratch / "nothing"); }),
            (scratch / "nothing").string() + ": cannot read it: No such file or directory");
}

TEST(MappedFile, ThrowsTheKindThatIsAskedFor) {
  try {
    MappedFile("/nothing/here", Kind::model);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind, Kind::model);
  }
}

TEST(File, WriteReplacesAndLeavesNothingElse) {
  const Scratch scratch;
  write_file(scratch / "a", "old");
  write_file(scratch / "a", "new");
  EXPECT_EQ(read_file(scratch / "a"), "new");
  EXPECT_EQ(entries_in(scratch.path), 1u);
}

TEST(File, AWriterWithoutCommitLeavesTheTargetAsItWas) {
  const Scratch scratch;
  write_file(scratch / "a", "old");
  { FileWriter(scratch / "a").write("half"); }
  EXPECT_EQ(read_file(scratch / "a"), "old");
  EXPECT_EQ(entries_in(scratch.path), 1u);
}

TEST(File, AHeaderThatIsKnownLastIsWrittenOver) {
  const Scratch scratch;
  FileWriter writer(scratch / "a");
  writer.write("????body");
  writer.write_at(0, "head");
  EXPECT_EQ(writer.size(), 8u);
  EXPECT_THROW(writer.write_at(6, "long"), std::logic_error);
  writer.commit();
  EXPECT_EQ(read_file(scratch / "a"), "headbody");
}

TEST(File, AKillAtAnyOperationLeavesTheOldOrTheNewFile) {
  const Scratch scratch;
  const auto target = scratch / "model";
  write_file(target, "old");
  bool survived = false;
  for (int n = 1; !survived; ++n) {
    survived = run_with_fault(fmt::format("kill:{}", n), [&] { write_file(target, "newer"); });
    const auto text = read_file(target);
    EXPECT_TRUE(text == "old" || text == "newer") << n << ": " << text;
    sweep_temporaries(scratch.path);
    EXPECT_EQ(entries_in(scratch.path), 1u) << n;
    write_file(target, "old");
    ASSERT_LT(n, 20);
  }
}

TEST(File, AFullDiskAtEachOperationIsASentence) {
  const Scratch scratch;
  const auto target = scratch / "model";
  for (int n = 1; n <= 5; ++n) {  // open, write, fsync, rename, fsync of the folder
    write_file(target, "old");
    std::string message;
    {
      const Fault fault(fmt::format("enospc:{}", n));
      message = message_of([&] { write_file(target, "newer"); });
    }
    EXPECT_NE(
        message.find("No space left on device; free space in " + scratch.path.string() + " and run with --resume"),
        std::string::npos)
        << n << ": " << message;
    EXPECT_NE(message.find(": cannot "), std::string::npos);
    EXPECT_EQ(read_file(target), n < 5 ? "old" : "newer");
    EXPECT_EQ(entries_in(scratch.path), 1u) << n;
  }
}

TEST(File, ADiskErrorNamesTheDisk) {
  const Scratch scratch;
  const Fault fault("eio:2");
  EXPECT_EQ(
      message_of([&] { write_file(scratch / "a", "text"); }),
      fmt::format("{0}/a: cannot write it: Input/output error; check the disk that holds {0} and run with --resume",
                  scratch.path.string()));
}

TEST(File, AFaultCanBeLimitedToAPath) {
  const Scratch scratch;
  const Fault fault("enospc:1:second");
  write_file(scratch / "first", "text");
  EXPECT_NE(message_of([&] { write_file(scratch / "second", "text"); }), "");
}

TEST(File, AFaultThatIsMisspeltIsRefused) {
  const Scratch scratch;
  const Fault fault("kill");
  EXPECT_EQ(message_of([&] { write_file(scratch / "a", ""); }),
            "GRAFT_TEST_FAULT: expected kill|enospc|eio|stop|free:<n>[:<part of path>], found kill");
}

TEST(File, AFolderThatIsNoneIsASentence) {
  const Scratch scratch;
  const auto message = message_of([&] { write_file(scratch / "missing/a", "text"); });
  EXPECT_NE(message.find("cannot open it for writing: No such file or directory"), std::string::npos) << message;
}

TEST(File, AppendGrowsAndAFailedAppendLeavesTheFile) {
  const Scratch scratch;
  append_durably(scratch / "journal", "one\n");
  append_durably(scratch / "journal", "two\n");
  {
    const Fault fault("enospc:2");
    const auto message = message_of([&] { append_durably(scratch / "journal", "three\n"); });
    EXPECT_NE(message.find("journal: cannot append to it: No space left on device; free space in"), std::string::npos)
        << message;
  }
  EXPECT_EQ(read_file(scratch / "journal"), "one\ntwo\n");
  truncate_file(scratch / "journal", 4);
  EXPECT_EQ(read_file(scratch / "journal"), "one\n");
}

TEST(File, AFailedCutIsASentence) {
  const Scratch scratch;
  write_text(scratch / "journal", "text");
  const Fault fault("eio:2");
  EXPECT_NE(
      message_of([&] { truncate_file(scratch / "journal", 1); }).find("journal: cannot cut it: Input/output error"),
      std::string::npos);
}

TEST(File, FoldersAreMadeRenamedAndRemoved) {
  const Scratch scratch;
  make_folder(scratch / "a/b/c/");
  make_folder(scratch / "a/b/c");
  write_text(scratch / "a/b/c/file", "text");
  rename_folder(scratch / "a/b", scratch / "z");
  EXPECT_EQ(read_file(scratch / "z/c/file"), "text");
  fs::create_directory_symlink(scratch / "z", scratch / "a/link");
  io::remove_all(scratch / "a");
  EXPECT_TRUE(fs::exists(scratch / "z/c/file"));
  io::remove_all(scratch / "z");
  io::remove_all(scratch / "z");
  EXPECT_TRUE(fs::is_empty(scratch.path));
}

TEST(File, FailuresOfFoldersAreSentences) {
  const Scratch scratch;
  write_text(scratch / "file", "");
  EXPECT_NE(message_of([&] { make_folder(scratch / "file"); }).find("file: cannot make the folder: File exists"),
            std::string::npos);
  EXPECT_NE(message_of([&] {
              rename_folder(scratch / "none", scratch / "to");
            }).find("to: cannot rename the finished folder to it: No such"),
            std::string::npos);
  const Fault fault("eio:1");
  EXPECT_NE(message_of([&] { io::remove_all(scratch / "file"); }).find("file: cannot remove it: Input/output error"),
            std::string::npos);
}

TEST(File, SweepTakesOnlyWhatTheDeadLeft) {
  const Scratch scratch;
  const pid_t dead = fork();
  if (dead == 0) _exit(0);
  waitpid(dead, nullptr, 0);
  const auto left = fmt::format(".model.safetensors.{}.tmp", dead), living = fmt::format(".a.{}.tmp", getpid());
  for (const auto& name : {left, living, std::string(".hidden.tmp"), std::string("x.12.tmp"), std::string("..tmp")})
    write_text(scratch / name, "");
  write_text(scratch / fmt::format(".000001.{}.tmp/file", dead), "");
  sweep_temporaries(scratch.path);
  EXPECT_FALSE(fs::exists(scratch / left));
  EXPECT_TRUE(fs::exists(scratch / living));
  EXPECT_EQ(entries_in(scratch.path), 4u);
  sweep_temporaries(scratch / "no such folder");
}

TEST(File, SpaceIsAskedForBeforehand) {
  const Scratch scratch;
  require_space(scratch / "not/yet/there", 1, "the store");
  const auto message = message_of([&] { require_space(scratch / "there", uint64_t{1} << 60, "the store"); });
  EXPECT_NE(message.find("there: the store needs 1099511627776.0 MiB, "), std::string::npos) << message;
  EXPECT_NE(message.find(" MiB are free; free space there or choose another folder"), std::string::npos);
}

TEST(File, AFolderThatCannotBeWrittenIsRefused) {
  const Scratch scratch;
  fs::permissions(scratch.path, static_cast<fs::perms>(0755));
  fs::create_directory(scratch / "closed");
  fs::permissions(scratch / "closed", static_cast<fs::perms>(0555));
  const pid_t child = fork();  // to root everything is writable, so it is asked as nobody
  if (child == 0) {
    if (getuid() == 0 && setuid(65534) != 0) _exit(2);
    const auto message = message_of([&] { require_space(scratch / "closed/run", 1, "the store"); });
    _exit(message != (scratch / "closed/run").string() + ": the store needs to write here, but " +
                         (scratch / "closed").string() + " is not writable: Permission denied; choose another folder");
  }
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST(File, TestsSayHowMuchIsFree) {
  const Scratch scratch;
  const Fault fault("free:3145728");
  require_space(scratch.path, 3 << 20, "the store");
  write_file(scratch / "file", "no operation fails");
  EXPECT_EQ(
      message_of([&] { require_space(scratch.path, (3 << 20) + 1, "the store"); }),
      scratch.path.string() + ": the store needs 3.0 MiB, 3.0 MiB are free; free space there or choose another folder");
}

}  // namespace
}  // namespace graft::io
