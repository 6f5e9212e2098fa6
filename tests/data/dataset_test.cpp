#include "graft/data/dataset.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "graft/core/error.h"
#include "graft/data/labels.h"
#include "tests/fixtures.h"

namespace graft::data {
namespace {

using tests::message_of;
using tests::write_text;
using Names = std::vector<std::string>;

/// Rows "text i" with the label i % labels.
std::string csv(int from, int to, int labels = 2) {
  std::string text = "text,label,doc\n";
  for (int i = from; i < to; ++i) text += fmt::format("text {},class {},doc {}\n", i, i % labels, i / 5);
  return text;
}

std::set<std::string> texts(const Examples& examples) {
  std::set<std::string> all;
  for (int64_t i = 0; i < examples.size(); ++i) all.emplace(examples.texts.text(i));
  return all;
}

struct DatasetTest : testing::Test {
  tests::Scratch folder;
  void write(const std::string& name, const std::string& text) { write_text(folder / name, text); }
  DataOptions options(const std::string& name = "") const {
    return {.path = name.empty() ? folder.path.string() : (folder / name).string()};
  }
  void expect_message(const DataOptions& o, const std::string& part, const Names& names = {}) {
    const auto message = message_of([&] { read_dataset(o, 0, names); });
    EXPECT_NE(message.find(part), std::string::npos) << message;
  }
};

TEST_F(DatasetTest, ReadsAFolderOfThreeFiles) {
  write("train.csv", csv(0, 20));
  write("val.jsonl", "{\"text\": \"v\", \"label\": \"class 1\"}\n");
  write("test.tsv", "text\tlabel\nt\tclass 0\n");
  const auto d = read_dataset(options(), 0);
  EXPECT_EQ(d.train.size(), 20);
  EXPECT_EQ(d.validation.labels, (std::vector<int64_t>{1}));
  EXPECT_EQ(d.test.labels, (std::vector<int64_t>{0}));
  EXPECT_EQ(d.label_names, (Names{"class 0", "class 1"}));
  EXPECT_EQ(d.files.size(), 3u);
  EXPECT_EQ(d.train.texts.text(3), "text 3");
}

TEST_F(DatasetTest, OneFileIsSplitByLabelAndSeedAlone) {
  write("a.csv", csv(0, 200, 4));
  const auto d = read_dataset(options("a.csv"), 7), again = read_dataset(options("a.csv"), 7),
             other = read_dataset(options("a.csv"), 8);
  EXPECT_EQ(d.train.size(), 160);
  EXPECT_EQ(d.validation.size(), 20);
  EXPECT_EQ(d.test.size(), 20);
  std::map<int64_t, int> counts;
  for (const auto label : d.test.labels) ++counts[label];
  for (const auto& [label, count] : counts) EXPECT_EQ(count, 5) << label;
  auto all = texts(d.train);
  all.merge(texts(d.validation));
  all.merge(texts(d.test));
  EXPECT_EQ(all.size(), 200u);
  EXPECT_EQ(d.hash, again.hash);
  EXPECT_NE(d.hash, other.hash);
  EXPECT_EQ(d.hash,
            "8872166d6303dfb9a9efdd413b6bd99d51936f3f60aaf881cf17c33153c90dca");  // the split of a seed never changes
}

TEST_F(DatasetTest, RareLabelsStayInTraining) {
  auto rows = csv(0, 40);
  for (int i = 0; i < 30; ++i) rows += fmt::format("only one,rare {},doc\n", i);
  write("a.csv", rows);
  for (uint64_t seed = 0; seed < 20; ++seed) {
    const auto d = read_dataset(options("a.csv"), seed);
    const std::set<int64_t> in_training(d.train.labels.begin(), d.train.labels.end());
    EXPECT_EQ(in_training.size(), d.label_names.size());
    EXPECT_EQ(d.test.size(), 7);
  }
}

TEST_F(DatasetTest, ValidationIsTakenFromTrainWhereOnlyTestIsGiven) {
  write("train.csv", csv(0, 100));
  write("test.csv", csv(100, 110));
  const auto d = read_dataset(options(), 0);
  EXPECT_EQ(d.train.size(), 90);
  EXPECT_EQ(d.validation.size(), 10);
  EXPECT_EQ(d.test.size(), 10);
}

TEST_F(DatasetTest, SplitByKeepsRowsTogether) {
  write("a.csv", csv(0, 200));
  auto o = options("a.csv");
  o.split_by = "doc";
  const auto d = read_dataset(o, 3);
  EXPECT_NEAR(static_cast<double>(d.validation.size()), 20, 5);
  EXPECT_NEAR(static_cast<double>(d.test.size()), 20, 5);
  std::map<int, const Examples*> owner;
  for (const auto* split : {&d.train, &d.validation, &d.test})
    for (const auto& text : texts(*split)) {
      const auto [known, is_new] = owner.emplace(std::stoi(text.substr(5)) / 5, split);
      EXPECT_EQ(known->second, split) << text;
    }
}

TEST_F(DatasetTest, SplitByIsCheckedAcrossFiles) {
  write("train.csv", csv(0, 20));
  write("test.csv", csv(19, 30));
  auto o = options();
  o.split_by = "doc";
  expect_message(o, "test.csv, row 2, column `doc`: the value `doc 3` is in ");
}

TEST_F(DatasetTest, LabelsKeepTheirNamesInNaturalOrder) {
  write("train.jsonl",
        "{\"text\": \"a\", \"label\": 10}\n{\"text\": \"b\", \"label\": 2}\n{\"text\": \"c\", \"label\": "
        "true}\n{\"text\": \"d\", \"label\": \"b10\"}\n{\"text\": \"e\", \"label\": \"b2\"}\n");
  write("validation.jsonl", "{\"text\": \"v\", \"label\": \"10\"}\n");
  const auto d = read_dataset(options(), 0);
  EXPECT_EQ(d.label_names, (Names{"2", "10", "b2", "b10", "true"}));
  EXPECT_EQ(d.train.labels, (std::vector<int64_t>{1, 0, 4, 3, 2}));
  EXPECT_EQ(d.validation.labels, (std::vector<int64_t>{1}));
}

TEST(Labels, NaturalOrder) {
  Names names = {"b", "-1", "a10", "3.5", "a2", "0", "B", "a02"};
  std::sort(names.begin(), names.end(), natural_less);
  EXPECT_EQ(names, (Names{"-1", "0", "3.5", "B", "a02", "a2", "a10", "b"}));
}

TEST_F(DatasetTest, AnUnseenLabelIsNamedWithTheNearest) {
  write("train.csv", "text,label\na,positive\nb,negative\n");
  write("test.csv", "text,label\nc,postive\n");
  expect_message(
      options(),
      "test.csv, row 2, column `label`: the label `postive` is not among those of training: negative, positive; "
      "the nearest is `positive`; correct it, or add rows with it to the training file");
}

TEST_F(DatasetTest, LabelsOfATrainedModelAreMatchedByName) {
  write("test.csv", "text,label\na,x\nb,y\nc,x\n");
  const auto d = read_dataset(options(), 0, {"y", "x"});
  EXPECT_EQ(d.test.labels, (std::vector<int64_t>{1, 0, 1}));
  EXPECT_EQ(d.train.size(), 0);
  EXPECT_EQ(d.label_names, (Names{"y", "x"}));
  expect_message(options(), "the label `x` is not among those of training: y, z", {"y", "z"});
}

TEST_F(DatasetTest, LabelsThatDifferOnlyInCaseOrBlanksAreAnError) {
  write("train.csv", "text,label\na,Spam\nb,ham\nc,spam \n");
  const auto path = (folder / "train.csv").string();
  expect_message(
      options(),
      fmt::format(
          "the labels `Spam` ({}, row 2) and `spam ` ({}, row 4) differ only in case or blanks; write them alike", path,
          path));
}

TEST_F(DatasetTest, OneClassOnlyIsAnError) {
  write("a.csv", csv(0, 50, 1));
  expect_message(options("a.csv"), "a.csv, column `label`: expected at least two labels, found only `class 0` in all ");
}

TEST_F(DatasetTest, EmptySplitsAreErrors) {
  write("train.csv", csv(0, 10));
  write("test.csv", "text,label\n");
  expect_message(options(), "test.csv: there are no rows; give a file with examples");
  write("few.csv", csv(0, 3));
  expect_message(options("few.csv"),
                 "few.csv: 3 rows are too few for a validation part of 0.1; give more rows, a larger "
                 "data.validation_fraction, or a validation file");
  auto grouped = options("few.csv");
  grouped.split_by = "doc";
  expect_message(grouped, "3 rows in groups by `doc` are too few");
}

TEST_F(DatasetTest, AMissingColumnIsNamedWithThoseThereAre) {
  write("a.csv", "texts,class\na,x\n");
  expect_message(options("a.csv"),
                 "a.csv, row 2, column `text`: there is no such column; the columns are texts, class; the nearest is "
                 "`texts`; set data.text to the right one");
  auto o = options("a.csv");
  o.bad_rows = "skip";
  expect_message(o, "none of the 1 rows can be used; the first: ");
}

TEST_F(DatasetTest, BadCellsAreNamed) {
  const auto check = [&](const std::string& row, const std::string& sentence, DataOptions o = {}) {
    write("train.jsonl", row + "\n");
    o.path = folder.path.string();
    expect_message(o, "train.jsonl, row 1, column " + sentence);
  };
  check(R"({"text": " ", "label": 1})", "`text`: expected text, found none; fill the cell or remove the row");
  check(R"({"text": 5, "label": 1})", "`text`: expected text, found 5; put it in quotes");
  check(R"({"text": "a", "label": 1.5})",
        "`label`: expected a label (text, whole number, true or false), found the number 1.5");
  check(R"({"text": "a", "label": null})", "`label`: expected a label (text, whole number, true or false), found null");
  check(R"({"text": "a", "label": ""})",
        "`label`: expected a label (text, whole number, true or false), found an empty text");
  check(R"({"text": "a", "label": 1, "b": ""})", "`b`: expected text, found none", {.pair = "b"});
  check(R"({"text": "a", "label": 1, "d": [1]})",
        "`d`: expected text or a whole number to keep rows together by, found a list", {.split_by = "d"});
  check(R"({"text": "a", "label": "high"})", "`label`: expected a finite number, found \"high\"",
        {.task = "regression"});
  check(R"({"text": "a", "label": "nan"})", "`label`: expected a finite number, found \"nan\"", {.task = "regression"});
  check(R"({"text": "a", "label": "-inf"})", "`label`: expected a finite number", {.task = "regression"});
  check(R"({"text": "a", "label": true})", "`label`: expected a finite number, found true", {.task = "regression"});
  check(R"({"text": "a", "label": 3})", "`label`: expected a list of labels, or text with `|` between them, found 3",
        {.task = "multilabel"});
  check(R"({"text": ["a", "b"], "label": ["X"]})", "`label`: expected 2 labels, one for each word, found 1",
        {.task = "tokens"});
  check(R"({"text": ["a b"], "label": ["X"]})", "`text`: expected words without blanks, found \"a b\"",
        {.task = "tokens"});
  check(R"({"text": [], "label": []})", "`text`: expected text, found none", {.task = "tokens"});
  check(R"({"text": 3, "label": []})", "`text`: expected a list of words or text, found 3", {.task = "tokens"});
  check(R"({"text": "a", "label": 3})", "`label`: expected a list with one label for each word, found 3",
        {.task = "tokens"});
}

TEST_F(DatasetTest, SkippedRowsAreCountedAndLeaveNothingBehind) {
  write("train.csv", csv(0, 10) + "text without a label,,d\n,label without a text,d\n");
  write("test.csv", csv(10, 12) + "unseen,other,d\n");
  auto o = options();
  o.bad_rows = "skip";
  const auto d = read_dataset(o, 0);
  EXPECT_EQ(d.skipped.count, 3);
  EXPECT_EQ(d.label_names.size(), 2u);
  EXPECT_EQ(d.test.size(), 2);
}

TEST_F(DatasetTest, Multilabel) {
  write("train.csv", "text,label\na,x|y\nb,\nc,y | y|x\n");
  write("dev.jsonl", "{\"text\": \"v\", \"label\": [\"y\"]}\n");
  auto o = options();
  o.task = "multilabel";
  const auto d = read_dataset(o, 0);
  EXPECT_EQ(d.label_names, (Names{"x", "y"}));
  EXPECT_EQ(d.train.label_sets.length(1), 0);
  EXPECT_EQ(d.train.label_sets.length(2), 2);
  EXPECT_EQ(d.validation.label_sets[0][0], 1);
  write("train.csv", "text,label\na,\n");
  write("dev.jsonl", "{\"text\": \"v\", \"label\": []}\n");
  expect_message(o, "train.csv, column `label`: no row has a label; check data.label and data.label_separator");
}

TEST_F(DatasetTest, RegressionAndPairs) {
  std::string rows = "text,label,second\n";
  for (int i = 0; i < 100; ++i) rows += fmt::format("a {},{},b {}\n", i, i * 0.5, i);
  write("a.csv", rows);
  auto o = options("a.csv");
  o.task = "regression";
  o.pair = "second";
  const auto d = read_dataset(o, 0);
  EXPECT_TRUE(d.label_names.empty());
  EXPECT_EQ(d.test.values.size(), 10u);
  std::set<int> deciles;
  for (const auto value : d.test.values) deciles.insert(static_cast<int>(value / 5));
  EXPECT_EQ(deciles.size(), 10u);
  EXPECT_EQ(std::string(d.test.pairs.text(0)).substr(2), std::string(d.test.texts.text(0)).substr(2));
}

TEST_F(DatasetTest, Tokens) {
  write("train.jsonl",
        "{\"text\": [\"Ada\", \"met\", \"Bob\"], \"label\": [\"PER\", \"O\", \"PER\"]}\n{\"text\": \"in  Rome\", "
        "\"label\": \"O LOC\"}\n");
  write("test.jsonl", "{\"text\": [\"x\"], \"label\": [\"O\"]}\n");
  write("val.jsonl", "{\"text\": [\"x\"], \"label\": [\"PER\"]}\n");
  auto o = options();
  o.task = "tokens";
  const auto d = read_dataset(o, 0);
  EXPECT_EQ(d.train.texts.text(0), "Ada met Bob");
  EXPECT_EQ(d.train.texts.text(1), "in Rome");
  EXPECT_EQ(d.label_names, (Names{"LOC", "O", "PER"}));
  EXPECT_EQ(d.train.label_sets[0][0], 2);
  EXPECT_EQ(d.train.label_sets[1][1], 0);
}

TEST_F(DatasetTest, MaxTrainSamplesEachLabel) {
  write("a.csv", csv(0, 500, 5));
  auto o = options("a.csv");
  o.max_train = 50;
  const auto d = read_dataset(o, 1);
  ASSERT_EQ(d.train.size(), 50);
  for (int64_t label = 0; label < 5; ++label)
    EXPECT_EQ(std::count(d.train.labels.begin(), d.train.labels.end(), label), 10);
  EXPECT_EQ(read_dataset(o, 1).hash, d.hash);
}

TEST_F(DatasetTest, MistakesInTheOptionsAreNamedTogether) {
  DataOptions o{.path = "x",
                .task = "clasification",
                .label_separator = "",
                .bad_rows = "drop",
                .validation_fraction = 0.6,
                .test_fraction = 0.5,
                .max_train = -1};
  const auto message = message_of([&] { read_dataset(o, 0); });
  for (const auto* part :
       {"data.task: expected classification or multilabel or regression or tokens or causal_lm, found `clasification`; "
        "did you mean "
        "`classification`?",
        "data.bad_rows: expected stop or skip, found `drop`", "data.label_separator: expected text, found none",
        "data.validation_fraction and data.test_fraction: expected less than 1 together, found 1.1",
        "data.max_train: expected 0 or more, found -1"})
    EXPECT_NE(message.find(part), std::string::npos) << message;
  expect_message({.path = "x", .validation_fraction = -1},
                 "data.validation_fraction: expected a number from 0 to below 1, found -1");
  expect_message({.path = "x", .pair = "b", .task = "tokens"},
                 "data.pair: the task tokens has no second text; remove it");
}

TEST_F(DatasetTest, FilesThatAreNotThereAreNamed) {
  expect_message({}, "data.path is missing; name a folder");
  expect_message({.path = "x", .train = "y"},
                 "data.path and data.train, data.validation, data.test exclude each other; keep one kind");
  expect_message({.test = "y"}, "data.train is missing; name the training file");
  expect_message(options("gone"), "gone: there is no such file or folder; check data.path");
  expect_message(options(), "expected a file train.jsonl, train.json, train.csv or train.tsv, found no files");
  write("data.csv", csv(0, 5));
  expect_message(options(), "found data.csv; rename one, or set data.path to the file that is to be split");
  write("train.csv", csv(0, 5));
  write("train.jsonl", "");
  expect_message(options(), "both train.csv and train.jsonl could be the train file; remove one");
}

TEST_F(DatasetTest, SummaryCountsClassesLengthsAndDuplicates) {
  write("train.csv", "text,label\nabc,x\nabc,x\nd\xc3\xa9,y\nlonger text,x\n");
  write("validation.csv", "text,label\nabc,x\n");
  write("test.csv", "text,label\nnew,y\nabc,y\n");
  const auto s = summary(read_dataset(options(), 0));
  const auto& train = s["splits"]["train"];
  EXPECT_EQ(train["rows"], 4);
  EXPECT_EQ(train["duplicates"], 1);
  EXPECT_EQ(train["classes"][0], (Json{{"name", "x"}, {"count", 3}, {"share", 0.75}}));
  EXPECT_EQ(train["characters"], (Json{{"min", 2}, {"median", 3}, {"percentile_95", 11}, {"max", 11}}));
  EXPECT_EQ(s["shared"], (Json{{"validation_with_train", 1}, {"test_with_train", 1}, {"test_with_validation", 1}}));
  const auto text = summary_text(s);
  for (const auto* part :
       {"classification, 2 labels\n", "train: 4 rows, 1 repeat another; characters: 2 to 11, median 3, 95 % up to 11\n",
        "         3   75.0 %  x\n", "1 test rows are in train too; the test score will be too good\n"})
    EXPECT_NE(text.find(part), std::string::npos) << text;
}

}  // namespace
}  // namespace graft::data
