// What the candidates are measured on: proportions, and that rare classes keep what scores need.
#include "graft/select/sample.h"

#include <gtest/gtest.h>

#include <map>

#include "tests/fixtures.h"

namespace graft::select {
namespace {

using tests::has;

/// Example i has the label at labels[i].
data::Examples classes(const std::vector<int64_t>& labels) {
  data::Examples examples;
  for (const auto label : labels) {
    examples.texts.push_back(std::string("text"));
    examples.labels.push_back(label);
  }
  return examples;
}

std::map<int64_t, int64_t> counted(const data::Examples& examples, const std::vector<int64_t>& rows) {
  std::map<int64_t, int64_t> counts;
  for (const auto row : rows) ++counts[examples.labels[row]];
  return counts;
}

TEST(Sample, RareClassesKeepFiveAndTheOthersTheirProportions) {
  std::vector<int64_t> labels(600, 0);
  labels.insert(labels.end(), 300, 1);
  labels.insert(labels.end(), 20, 2);
  labels.insert(labels.end(), 3, 3);
  const auto examples = classes(labels);
  const auto rows = sample_examples(examples, "classification", 4, 60, 1);
  EXPECT_EQ(rows.size(), 60u);
  EXPECT_TRUE(std::is_sorted(rows.begin(), rows.end()));
  const auto counts = counted(examples, rows);
  EXPECT_EQ(counts.at(3), 3) << "all that there are";
  EXPECT_EQ(counts.at(2), 5);
  EXPECT_NEAR(static_cast<double>(counts.at(0)) / static_cast<double>(counts.at(1)), 2, 0.5);
  EXPECT_EQ(sample_examples(examples, "classification", 4, 60, 1), rows);
  EXPECT_NE(sample_examples(examples, "classification", 4, 60, 2), rows);
  EXPECT_EQ(sample_examples(examples, "classification", 4, 923, 1).size(), 923u);
}

TEST(Sample, MoreClassesThanTheSampleHasRoomFor) {
  std::vector<int64_t> labels;
  for (int i = 0; i < 40 * 30; ++i) labels.push_back(i % 40);
  const auto examples = classes(labels);
  const auto rows = sample_examples(examples, "classification", 40, 50, 1);
  EXPECT_EQ(rows.size(), 200u);
  for (const auto& [label, count] : counted(examples, rows)) EXPECT_EQ(count, 5) << label;
}

TEST(Sample, LabelsOfSetsAndOfWordsAreKeptToo) {
  data::Examples examples;
  for (int i = 0; i < 400; ++i) {
    examples.texts.push_back(std::string("a b"));
    // The third label never stands alone, and the fourth only beside it.
    const std::vector<int32_t> set = i % 50 == 0 ? std::vector<int32_t>{0, 2, 3} : std::vector<int32_t>{0, 1};
    examples.label_sets.push_back(set);
  }
  for (const auto* task : {"multilabel", "tokens"}) {
    std::map<int32_t, int> counts;
    const auto rows = sample_examples(examples, task, 4, 20, 3);
    for (const auto row : rows)
      for (const auto label : examples.label_sets[row]) ++counts[label];
    EXPECT_LE(rows.size(), 25u);
    for (const auto label : {0, 1, 2, 3}) EXPECT_GE(counts[label], 5) << task << " " << label;
  }
}

TEST(Sample, ValuesOfAllTenths) {
  data::Examples examples;
  for (int i = 0; i < 500; ++i) examples.texts.push_back(std::string("x")), examples.values.push_back(i * i);
  const auto rows = sample_examples(examples, "regression", 0, 50, 1);
  ASSERT_EQ(rows.size(), 50u);
  std::map<int64_t, int> tenths;
  for (const auto row : rows) ++tenths[row / 50];
  for (const auto& [tenth, count] : tenths) EXPECT_EQ(count, 5) << tenth;
}

TEST(Sample, TooFewExamplesOfALabelAreNamedForEveryTask) {
  const auto refusal = [](const data::Examples& examples, const std::string& task) {
    return tests::message_of([&] { expect_enough(examples, task, {"often", "seldom"}); });
  };
  EXPECT_TRUE(
      has(refusal(classes({0, 0, 0, 0, 0, 0, 1, 1}), "classification"),
          "too few training examples to measure sources with: 5 of each class are needed, and these have fewer: "
          "seldom (2). Add examples, merge or remove the classes"));
  EXPECT_EQ(refusal(classes({0, 0, 0, 0, 0, 1, 1, 1, 1, 1}), "classification"), "");
  data::Examples sets;
  for (int i = 0; i < 9; ++i) sets.label_sets.push_back(i < 3 ? std::vector<int32_t>{0, 1} : std::vector<int32_t>{0});
  EXPECT_TRUE(has(refusal(sets, "multilabel"), "5 of each label are needed, and these have fewer: seldom (3)"));
  EXPECT_TRUE(has(refusal(sets, "tokens"), "too few training words to measure sources with: 5 of each label"));
  data::Examples values;
  for (int i = 0; i < 9; ++i) values.values.push_back(i);
  EXPECT_TRUE(has(refusal(values, "regression"), "10 are needed, there are 9"));
}

}  // namespace
}  // namespace graft::select
