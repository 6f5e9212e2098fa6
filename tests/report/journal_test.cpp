// The journal: durable lines, cut to what a checkpoint remembers, comparable without its times.
#include "graft/report/journal.h"

#include <gtest/gtest.h>

#include "tests/fixtures.h"
#include "tests/io/fault.h"

namespace graft::report {
namespace {

using tests::message_of;
using tests::Scratch;

TEST(Journal, HasALineForEachEvent) {
  const Scratch scratch;
  Journal journal(scratch / "journal.jsonl");
  journal.write("epoch", {{"epoch", 1}, {"loss", 0.5}});
  journal.write("done", {});
  const auto entries = journal.entries();
  ASSERT_EQ(entries.size(), 2u);
  EXPECT_EQ(entries[0]["event"], "epoch");
  EXPECT_EQ(entries[0]["loss"], 0.5);
  EXPECT_EQ(entries[1]["event"], "done");
  EXPECT_EQ(entries[1]["time"].get<std::string>().size(), 20u);
  EXPECT_EQ(journal.size(), tests::read_text(scratch / "journal.jsonl").size());
}

TEST(Journal, IsCutToWhatACheckpointRemembers) {
  const Scratch scratch;
  const auto file = scratch / "journal.jsonl";
  uint64_t remembered = 0;
  {
    Journal journal(file);
    journal.write("epoch", {{"epoch", 1}});
    remembered = journal.size();
    journal.write("epoch", {{"epoch", 2}});
  }
  // A line that a power cut left half written, behind what the checkpoint knows.
  tests::write_text(file, tests::read_text(file) + "{\"event\":\"epoch\",\"epo");
  Journal journal(file);
  EXPECT_EQ(journal.entries().size(), 2u) << "half a line is no entry";
  journal.cut(remembered);
  EXPECT_EQ(journal.size(), remembered);
  journal.write("epoch", {{"epoch", 2}});
  const auto entries = Journal(file).entries();
  ASSERT_EQ(entries.size(), 2u);
  EXPECT_EQ(entries[1]["epoch"], 2);
  EXPECT_NE(message_of([&] { journal.cut(journal.size() + 1); }).find("is shorter than its checkpoint remembers"),
            std::string::npos);
}

TEST(Journal, AWriteThatFailsLeavesTheLinesBefore) {
  const Scratch scratch;
  const auto file = scratch / "journal.jsonl";
  Journal journal(file);
  journal.write("first", {});
  const auto before = tests::read_text(file);
  {
    const tests::Fault full("enospc:2:journal.jsonl");  // the write itself, of which half arrives
    EXPECT_NE(message_of([&] { journal.write("second", {}); }).find("cannot append to it: No space left on device"),
              std::string::npos);
  }
  EXPECT_EQ(tests::read_text(file), before);
  EXPECT_EQ(journal.size(), before.size());
  EXPECT_FALSE(tests::run_with_fault("kill:2:journal.jsonl", [&] { Journal(file).write("second", {}); }));
  EXPECT_GT(tests::read_text(file).size(), before.size()) << "half a line";
  EXPECT_EQ(Journal(file).entries().size(), 1u);
}

TEST(Journal, RunsAreComparedWithoutTheirTimes) {
  const Json one{{"event", "a"}, {"time", "1"}, {"seconds", 2.0}, {"capture", {{"seconds", 3.0}, {"rows", 4}}}},
      two{{"event", "a"}, {"time", "9"}, {"seconds", 8.0}, {"capture", {{"seconds", 7.0}, {"rows", 4}}}},
      other{{"event", "a"}, {"time", "1"}, {"seconds", 2.0}, {"capture", {{"seconds", 3.0}, {"rows", 5}}}};
  EXPECT_EQ(without_times({one}), without_times({two}));
  EXPECT_NE(without_times({one}), without_times({other}));
}

}  // namespace
}  // namespace graft::report
