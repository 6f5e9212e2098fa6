#include "graft/data/corpus.h"

#include <gtest/gtest.h>

#include <set>

#include "graft/core/error.h"
#include "tests/fixtures.h"

namespace graft::data {
namespace {

using tests::message_of;
using tests::Scratch;
using tests::write_text;

std::string lines(int from, int to) {
  std::string text;
  for (int i = from; i < to; ++i) text += "document number " + std::to_string(i) + "\n";
  return text;
}

std::set<std::string> held_out(const CorpusOptions& options) {
  std::set<std::string> documents;
  for_each_document(options, [&](std::string_view document, bool is_held_out) {
    if (is_held_out) documents.emplace(document);
  });
  return documents;
}

std::string message(const CorpusOptions& options) {
  return message_of([&] { for_each_document(options, [](std::string_view, bool) {}); });
}

TEST(Corpus, ReadsTheFilesOfAFolderInOrder) {
  Scratch folder;
  write_text(folder / "b.jsonl", "{\"text\": \"from json\"}\n");
  write_text(folder / "a.txt", "one\n\ntwo\n");
  write_text(folder / "c.csv", "id,text\n1,\"from\ncsv\"\n");
  write_text(folder / "notes.md", "not this");
  std::vector<std::string> documents;
  const auto all =
      for_each_document({.path = folder.path}, [&](std::string_view d, bool) { documents.emplace_back(d); });
  EXPECT_EQ(documents, (std::vector<std::string>{"one", "two", "from json", "from\ncsv"}));
  EXPECT_EQ(all.documents, 4);
  EXPECT_EQ(all.files.size(), 3u);
  EXPECT_EQ(all.bytes, 23u);
}

TEST(Corpus, TheHeldOutPartIsStableWhileTheCorpusGrows) {
  Scratch folder;
  write_text(folder / "a.txt", lines(0, 2000));
  const auto before = held_out({.path = folder / "a.txt"});
  EXPECT_NEAR(static_cast<double>(before.size()), 100, 40);
  write_text(folder / "a.txt", lines(1000, 4000));
  const auto after = held_out({.path = folder / "a.txt"});
  for (int i = 1000; i < 2000; ++i) {
    const auto document = "document number " + std::to_string(i);
    EXPECT_EQ(before.contains(document), after.contains(document));
  }
  EXPECT_TRUE(held_out({.path = folder / "a.txt", .held_out_fraction = 0}).empty());
}

TEST(Corpus, MistakesAreNamed) {
  Scratch folder;
  EXPECT_NE(message({}).find("the path of the corpus is missing"), std::string::npos);
  EXPECT_NE(message({.path = folder / "gone"}).find("there is no such file or folder"), std::string::npos);
  EXPECT_NE(message({.path = folder.path})
                .find("expected files that end in .txt, .jsonl, .ndjson, .json, .csv, .tsv, found none"),
            std::string::npos);
  write_text(folder / "a.txt", "\n\n");
  EXPECT_NE(message({.path = folder / "a.txt"}).find("there are no documents; give a file with text"),
            std::string::npos);
  write_text(folder / "a.csv", "body,id\nx,1\n");
  EXPECT_NE(message({.path = folder / "a.csv"})
                .find("row 2, column `text`: there is no such column; the columns are body, id"),
            std::string::npos);
  EXPECT_NE(message({.path = folder / "a.csv", .bad_rows = "skip"}).find("no row can be used; the first: "),
            std::string::npos);
  write_text(folder / "a.jsonl", "{\"text\": 3}\n");
  EXPECT_NE(
      message({.path = folder / "a.jsonl"}).find("row 1, column `text`: expected text, found 3; put it in quotes"),
      std::string::npos);
  write_text(folder / "a.jsonl", "{\"text\": \" \"}\n");
  EXPECT_NE(message({.path = folder / "a.jsonl"}).find("expected text, found none"), std::string::npos);
  EXPECT_EQ(message({.path = "x", .bad_rows = "drop"}), "bad_rows: expected stop or skip, found `drop`");
  EXPECT_EQ(message({.path = "x", .held_out_fraction = 1}),
            "held_out_fraction: expected a number from 0 to below 1, found 1");
}

TEST(Corpus, SkipsAndCountsBadRows) {
  Scratch folder;
  write_text(folder / "a.jsonl", "{\"text\": \"a\"}\n{\n{\"text\": \"b\"}\n");
  const auto all = for_each_document({.path = folder / "a.jsonl", .bad_rows = "skip"}, [](std::string_view, bool) {});
  EXPECT_EQ(all.documents, 2);
  EXPECT_EQ(all.skipped.count, 1);
}

}  // namespace
}  // namespace graft::data
