#include "graft/data/table.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <fstream>

#include "graft/core/error.h"
#include "tests/fixtures.h"

namespace graft::data {
namespace {

using tests::message_of;
using tests::Scratch;
using tests::write_text;

struct Read {
  std::vector<Row> rows;
  SkippedRows skipped;
};

Read read(const fs::path& file, BadRows bad_rows = BadRows::stop, int64_t limit = 10'000'000) {
  Read result;
  result.skipped = for_each_row(
      file, bad_rows, [&](const Row& row) { result.rows.push_back(row); }, limit);
  return result;
}

struct Table : testing::Test {
  Scratch folder;
  fs::path file(const std::string& name, const std::string& text) {
    write_text(folder / name, text);
    return folder / name;
  }
  void expect_message(const fs::path& path, const std::string& part, int64_t limit = 10'000'000) {
    const auto message = message_of([&] { read(path, BadRows::stop, limit); });
    EXPECT_TRUE(message.starts_with(path.string())) << message;
    EXPECT_NE(message.find(part), std::string::npos) << message;
  }
};

TEST_F(Table, CsvKeepsQuotedNewlinesQuotesAndSeparators) {
  const auto got = read(file("a.csv", "text,label\n\"one, \"\"two\"\"\nthree\",x\nfour \"five\",y\n"));
  ASSERT_EQ(got.rows.size(), 2u);
  EXPECT_EQ(got.rows[0].cells["text"], "one, \"two\"\nthree");
  EXPECT_EQ(got.rows[0].number, 2);
  EXPECT_EQ(got.rows[1].cells["text"], "four \"five\"");
  EXPECT_EQ(got.rows[1].number, 4);
}

TEST_F(Table, ByteOrderMarkAndCrlfAreNotPartOfTheText) {
  for (const auto* end : {"\r\n", "\n", "\r"}) {
    const std::string e = end;
    const auto got = read(file("a.csv", "\xef\xbb\xbftext,label" + e + "one,x" + e + e + "two,"));
    ASSERT_EQ(got.rows.size(), 2u);
    EXPECT_EQ(got.rows[0].cells, (Json{{"text", "one"}, {"label", "x"}}));
    EXPECT_EQ(got.rows[1].cells["label"], "");
  }
  const auto lines = read(file("a.jsonl", "\xef\xbb\xbf{\"text\": \"one\"}\r\n\r\n{\"text\": 2}\r\n"));
  ASSERT_EQ(lines.rows.size(), 2u);
  EXPECT_EQ(lines.rows[1].cells["text"], 2);
  EXPECT_EQ(lines.rows[1].number, 3);
  const auto texts = read(file("a.txt", "\xef\xbb\xbfone\r\n\r\ntwo"));
  ASSERT_EQ(texts.rows.size(), 2u);
  EXPECT_EQ(texts.rows[1].cells["text"], "two");
}

TEST_F(Table, TsvSplitsAtTabs) {
  EXPECT_EQ(read(file("a.TSV", "text\tlabel\na, b\tx\n")).rows.at(0).cells["text"], "a, b");
}

TEST_F(Table, EmptyFilesHaveNoRows) {
  for (const auto* name : {"a.csv", "a.jsonl", "a.txt"}) EXPECT_TRUE(read(file(name, "")).rows.empty());
  EXPECT_TRUE(read(file("b.csv", "text,label\n")).rows.empty());
}

TEST_F(Table, AnOpenQuoteIsNamedWithItsLineEvenWhereBadRowsAreSkipped) {
  const auto path = file("a.csv", "text,label\none,x\ntwo,\"y\nthree,x\nfour,y\n");
  expect_message(path, "row 3: the quote that opens in line 3 is not closed before the end of the file; close it");
  EXPECT_NE(message_of([&] { read(path, BadRows::skip); }).find("opens in line 3"), std::string::npos);
}

TEST_F(Table, CellsAndQuotesAreChecked) {
  expect_message(file("a.csv", "text,label\none\n"),
                 "row 2: expected 2 cells as in the header, found 1; quote cells that hold the separator");
  expect_message(file("b.csv", "text,label\n\"one\" two,x\n"),
                 "row 2: expected a separator after a closing quote, found text");
  expect_message(file("c.csv", "text,text\n"), "the column `text` is there twice");
}

TEST_F(Table, InvalidUtf8IsNamedWithRowAndByte) {
  expect_message(file("a.csv", "text,label\nok,x\ncaf\xe9,x\n"),
                 "row 3: expected UTF-8, found the byte 0xe9 at byte 4 of the row; save the file as UTF-8");
  expect_message(file("a.jsonl", "{\"text\": \"\xc0\xaf\"}\n"),
                 "row 1: expected UTF-8, found the byte 0xc0 at byte 11");
  expect_message(file("a.txt", "\xed\xa0\x80\n"), "row 1: expected UTF-8");
}

TEST_F(Table, Utf16IsNamed) {
  for (const auto* mark : {"\xff\xfe", "\xfe\xff"})
    expect_message(file("a.csv", std::string(mark) + "t"),
                   "expected UTF-8, found UTF-16 (byte-order mark); convert it: iconv -f UTF-16 -t UTF-8");
}

TEST_F(Table, JsonMistakesAreNamed) {
  expect_message(file("a.jsonl", "{\"text\": \"a\"}\n{\"text\": \n"),
                 "row 2: expected one JSON object a line, found text that is not JSON at byte 10: {\"text\":");
  expect_message(file("b.jsonl", "3\n"), "row 1: expected one JSON object a line, found a number");
  expect_message(file("c.json", "[{\"text\": \"a\"}]\n"), "found an array; `jq -c '.[]'` turns an array into lines");
}

TEST_F(Table, ALongRowIsAnErrorAndTakesNoMemory) {
  const std::string text(11'000'000, 'x');
  const std::string limit = "expected at most 10000000 bytes in a row, found more; split the text or remove the row";
  expect_message(file("a.jsonl", "{\"text\": \"a\"}\n{\"text\": \"" + text + "\"}\n"), "row 2: " + limit);
  expect_message(file("a.txt", text), "row 1: " + limit);
  expect_message(file("a.csv", "text\n" + text + "\n"), "row 2: " + limit);
  expect_message(file("b.csv", "text\n\"" + text + "\"\n"), "or close the quote that opens in line 2");
  for (const auto* name : {"a.jsonl", "a.txt", "a.csv", "b.csv"})
    EXPECT_EQ(read(folder / name, BadRows::skip).skipped.count, 1);
  EXPECT_EQ(read(folder / "a.jsonl", BadRows::skip).rows.size(), 1u);
}

TEST_F(Table, ALargeFileIsStreamed) {
  const auto path = folder / "a.jsonl";
  {
    std::ofstream out(path);
    for (int i = 0; i < 1'200'000; ++i)
      out << "{\"text\": \"a row of some words, and of a few more words\", \"label\": 1}\n";  // 80 MB
  }
  rusage before, after;
  getrusage(RUSAGE_SELF, &before);
  int64_t rows = 0;
  for_each_row(path, BadRows::stop, [&](const Row&) { ++rows; });
  getrusage(RUSAGE_SELF, &after);
  EXPECT_EQ(rows, 1'200'000);
#ifndef __SANITIZE_ADDRESS__                              // which keeps freed memory
  EXPECT_LT(after.ru_maxrss - before.ru_maxrss, 20'000);  // KiB
#endif
}

TEST_F(Table, BadRowsAreCountedAndTheFirstTenKept) {
  std::string text;
  for (int i = 0; i < 30; ++i) text += i % 2 ? "{}\n" : "{\n";
  const auto got = read(file("a.jsonl", text), BadRows::skip);
  EXPECT_EQ(got.rows.size(), 15u);
  EXPECT_EQ(got.skipped.count, 15);
  EXPECT_EQ(got.skipped.first.size(), 10u);
}

TEST_F(Table, MistakesOfTheCallerAreNotSkipped) {
  const auto path = file("a.txt", "a\nb\n");
  const auto use = [](const Row&) { fail(Kind::disk, "full"); };
  EXPECT_EQ(message_of([&] { for_each_row(path, BadRows::skip, use); }), "full");
}

TEST_F(Table, FilesThatCannotBeReadAreNamed) {
  expect_message(folder / "gone.csv", "there is no such file; check the path");
  expect_message(file("a.xlsx", "x"),
                 "expected a file that ends in .jsonl, .ndjson, .json, .csv, .tsv or .txt, found `.xlsx`");
  expect_message(folder.path, "cannot be read as a file");
}

TEST(FailRow, NamesFileRowAndColumn) {
  EXPECT_EQ(message_of([] { fail_row("a.csv", 3, "label", "is empty"); }), "a.csv, row 3, column `label`: is empty");
}

TEST(Utf8, AgreesWithRfc3629) {
  for (const auto* good :
       {"", "a", "\xc2\x80", "\xe0\xa0\x80", "\xed\x9f\xbf", "\xee\x80\x80", "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf"})
    EXPECT_TRUE(is_utf8(good)) << good;
  for (const auto* bad : {"\x80", "\xc1\xbf", "\xe0\x9f\xbf", "\xed\xa0\x80", "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80",
                          "\xf5", "\xe2\x82", "\xff"})
    EXPECT_FALSE(is_utf8(bad));
  EXPECT_EQ(excerpt("caf\xc3\xa9s", 4), "caf...");
}

}  // namespace
}  // namespace graft::data
