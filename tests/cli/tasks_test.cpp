// Each task of texts as a user runs it: data as they come, the result as other programs read it.
#include <gtest/gtest.h>

#include <functional>
#include <sstream>

#include "graft/report/journal.h"
#include "tests/cli/program.h"

namespace graft {
namespace {

using tests::graft;
using tests::tiny_sentence;
using tests::write_text;

struct Tasks : testing::Test {
  Tasks() { tests::write_tiny_source(scratch / "source"); }

  /// Three files of one row each call; `row` gets a number from 0.
  void write_splits(const std::string& extension, const std::string& header,
                    const std::function<std::string(int)>& row) {
    int number = 0;
    for (const auto& [name, rows] : {std::pair{"train", 96}, {"validation", 32}, {"test", 24}}) {
      std::string text = header;
      for (int i = 0; i < rows; ++i) text += row(number++) + "\n";
      write_text(scratch / "data" / (name + extension), text);
    }
  }

  /// The result of `graft finetune` with these settings.
  Json finetuned(const std::vector<std::string>& settings, const std::string& data = "data") {
    std::vector<std::string> arguments{"finetune",
                                       "--quiet",
                                       "--json",
                                       "--source",
                                       (scratch / "source").string(),
                                       "--data",
                                       (scratch / data).string(),
                                       "--out",
                                       (scratch / "run").string()};
    std::vector<std::string> all{"finetune.head.epochs=4",
                                 "finetune.head.min_epochs=4",
                                 "finetune.head.learning_rates=[1e-2]",
                                 "finetune.head.weight_decays=[0.01]",
                                 "finetune.unfreeze.max_units=2",
                                 "finetune.unfreeze.epochs=25",
                                 "finetune.unfreeze.patience_units=0",
                                 "finetune.unfreeze.learning_rate=5e-3",
                                 "finetune.unfreeze.head_learning_rate=5e-3",
                                 "finetune.full.when=always",
                                 "finetune.full.epochs=30",
                                 "finetune.full.patience=0",
                                 "finetune.full.learning_rate=5e-3",
                                 "retain.report=false",
                                 "train.batch_size=16",
                                 "train.threads=1",
                                 "max_length=24"};
    all.insert(all.end(), settings.begin(), settings.end());
    for (const auto& setting : all) arguments.insert(arguments.end(), {"--set", setting});
    const auto run = graft(arguments);
    EXPECT_EQ(run.code, 0) << run.err;
    return run.code == 0 ? Json::parse(run.out) : Json();
  }

  /// What evaluate says of the test file must be what the run measured.
  void expect_evaluated(const Json& result, const std::string& file, const std::vector<std::string>& columns = {}) {
    std::vector<std::string> arguments{"evaluate",       "--json", "--model",
                                       model().string(), "--data", (scratch / "data" / file).string()};
    arguments.insert(arguments.end(), columns.begin(), columns.end());
    const auto evaluation = graft(arguments);
    ASSERT_EQ(evaluation.code, 0) << evaluation.err;
    for (const auto& item : Json::parse(evaluation.out)["metrics"].items())
      EXPECT_NEAR(item.value().get<double>(), result["test"][item.key()].get<double>(), 1e-6) << item.key();
  }

  std::vector<Json> predicted(const std::string& input, const std::vector<std::string>& columns = {}) {
    std::vector<std::string> arguments{"predict", "--json", "--model", model().string()};
    arguments.insert(arguments.end(), columns.begin(), columns.end());
    const auto prediction = graft(arguments, input);
    EXPECT_EQ(prediction.code, 0) << prediction.err;
    std::vector<Json> rows;
    std::istringstream lines(prediction.out);
    for (std::string line; std::getline(lines, line);) rows.push_back(Json::parse(line));
    return rows;
  }

  std::filesystem::path model() const { return scratch / "run" / "model"; }
  Json config() const { return Json::parse(tests::read_text(model() / "config.json")); }

  Json journalled(const std::string& event) const {
    for (const auto& entry : report::Journal(scratch / "run" / "journal.jsonl").entries())
      if (entry["event"] == event) return entry;
    return {};
  }

  tests::Scratch scratch;
  Random random{11};
};

TEST_F(Tasks, LabelsOnWordsAreJudgedByEntities) {
  // "good" is a praise, "bad" a complaint.
  write_splits(".jsonl", "", [&](int i) {
    std::istringstream words(tiny_sentence(random, i % 2 ? "good" : "bad"));
    Json text = Json::array(), label = Json::array();
    for (std::string word; words >> word;) {
      text.push_back(word);
      label.push_back(word == "good" ? "B-PRAISE" : word == "bad" ? "B-COMPLAINT" : "O");
    }
    return Json{{"text", text}, {"label", label}}.dump();
  });
  const auto result = finetuned({"data.task=tokens"});
  EXPECT_EQ(result["finetune"]["metric"], "entity_f1");
  EXPECT_GT(result["test"]["entity_f1"], 0.9);
  EXPECT_GT(result["test"]["accuracy"], 0.9);
  EXPECT_EQ(config()["architectures"][0], "BertForTokenClassification");
  EXPECT_EQ(config()["id2label"]["2"], "O");
  const auto rows = predicted("the bad film was long\n");
  EXPECT_EQ(rows.at(0)["labels"], (Json{"O", "B-COMPLAINT", "O", "O", "O"}));
  expect_evaluated(result, "test.jsonl");
}

TEST_F(Tasks, SeveralLabelsATextFromACsvFile) {
  write_splits(".csv", "text,label\n", [&](int i) {
    const bool good = i % 2, music = i % 3 == 0;
    return tiny_sentence(random, good ? "good" : "the") + " " + tiny_sentence(random, music ? "bad" : "a") + "," +
           (good ? "praise" : "") + (good && music ? "|" : "") + (music ? "complaint" : "");
  });
  const auto result = finetuned({"data.task=multilabel", "finetune.full.epochs=60"});
  EXPECT_EQ(result["finetune"]["metric"], "micro_f1");
  EXPECT_GT(result["test"]["micro_f1"], 0.9);
  EXPECT_TRUE(result["test"].contains("macro_auroc"));
  EXPECT_EQ(config()["problem_type"], "multi_label_classification");
  const auto rows = predicted("this was good and bad\nthe film\n");
  EXPECT_EQ(rows.at(0)["labels"], (Json{"complaint", "praise"}));
  EXPECT_EQ(rows.at(1)["labels"], Json::array());
  expect_evaluated(result, "test.csv");
}

TEST_F(Tasks, ValuesAreJudgedByTheirCorrelation) {
  write_splits(".tsv", "text\tlabel\n", [&](int i) {
    const int good = i % 3;
    std::string text = tiny_sentence(random, "the");
    for (int k = 0; k < 2; ++k) text += k < good ? " good" : " bad";
    return text + "\t" + std::to_string(good * 1.5);
  });
  const auto result = finetuned({"data.task=regression"});
  EXPECT_EQ(result["finetune"]["metric"], "pearson");
  EXPECT_GT(result["test"]["pearson"], 0.6);  // a tiny model that counts two words; 0 without learning
  EXPECT_GT(result["test"]["spearman"], 0.6);
  EXPECT_EQ(config()["problem_type"], "regression");
  EXPECT_EQ(config()["id2label"].size(), 1u);
  const auto rows = predicted("this was good good\nthis was bad bad\n");
  EXPECT_GT(rows.at(0)["value"].get<double>(), rows.at(1)["value"].get<double>() + 0.5);
  expect_evaluated(result, "test.tsv");
}

TEST_F(Tasks, PairsOfTextsAreTwoColumns) {
  // What the first says is noise; the second decides.
  const auto row = [&](bool first, bool second) {
    return Json{{"premise", tiny_sentence(random, first ? "good" : "bad")},
                {"hypothesis", tiny_sentence(random, second ? "good" : "bad")},
                {"answer", second ? "yes" : "no"}};
  };
  write_splits(".jsonl", "", [&](int i) { return row(i % 4 > 1, i % 2).dump(); });
  const auto result = finetuned({"data.text=premise", "data.pair=hypothesis", "data.label=answer"});
  EXPECT_GT(result["test"]["accuracy"], 0.9);
  const std::vector<std::string> columns{"--text", "premise", "--pair", "hypothesis"};
  std::string input;
  for (const auto& [first, second] : {std::pair{true, false}, {false, true}}) input += row(first, second).dump() + "\n";
  const auto rows = predicted(input, columns);
  EXPECT_EQ(rows.at(0)["label"], "no");
  EXPECT_EQ(rows.at(1)["label"], "yes");
  expect_evaluated(result, "test.jsonl", {"--text", "premise", "--pair", "hypothesis", "--label", "answer"});
}

TEST_F(Tasks, ARobertaOfVocabularyAndMergesAlone) {
  std::filesystem::remove_all(scratch / "source");
  tests::write_tiny_roberta(scratch / "source");
  tests::write_tiny_data(scratch / "data");
  const auto result = finetuned({});
  EXPECT_GT(result["test"]["accuracy"], 0.9);
  EXPECT_EQ(config()["architectures"][0], "RobertaForSequenceClassification");
  for (const auto* file : {"tokenizer.json", "vocab.json", "merges.txt"})
    EXPECT_TRUE(std::filesystem::exists(model() / file)) << file;
  expect_evaluated(result, "test.jsonl");
}

TEST_F(Tasks, OneFileOfOtherColumnsIsSplit) {
  for (const auto& [name, separator] : {std::pair{"reviews.csv", ","}, {"reviews.tsv", "\t"}}) {
    std::filesystem::remove_all(scratch / "run");
    const auto line = [&](const std::string& a, const std::string& b, const std::string& c) {
      return a + separator + b + separator + c + "\n";
    };
    std::string text = line("id", "opinion", "body");
    for (int i = 0; i < 160; ++i) {
      const bool good = i % 2;
      // A quoted cell with the separator, doubled quotes and a line break in it.
      const auto body = tiny_sentence(random, good ? "good" : "bad");
      text += line(std::to_string(i), good ? "like" : "dislike",
                   i % 5 ? body : "\"a \"\"film\"\"" + std::string(separator) + " " + body + "\n\"");
    }
    write_text(scratch / "data" / name, text);
    const auto result =
        finetuned({"data.text=body", "data.label=opinion", "data.test_fraction=0.15"}, std::string("data/") + name);
    const auto splits = journalled("data")["summary"]["splits"];
    EXPECT_EQ(splits["train"]["rows"], 120) << splits;
    EXPECT_EQ(splits["validation"]["rows"], 16);
    EXPECT_EQ(splits["test"]["rows"], 24);
    EXPECT_EQ(result["test"]["examples"], 24);
    EXPECT_GT(result["test"]["accuracy"], 0.6) << "the words of the noise are many, and the rows few";
    EXPECT_EQ(config()["id2label"]["0"], "dislike");
  }
}

TEST_F(Tasks, AdaptAloneMasksWholeWordsAsOftenAsAsked) {
  tests::write_tiny_data(scratch / "data");
  const auto run = graft({"adapt",    "--json",
                          "--source", (scratch / "source").string(),
                          "--corpus", (scratch / "corpus.txt").string(),
                          "--out",    (scratch / "run").string(),
                          "--set",    "adapt.mask_probability=0.3",
                          "--set",    "adapt.whole_words=true",
                          "--set",    "adapt.epochs=4",
                          "--set",    "adapt.learning_rate=3e-3",
                          "--set",    "adapt.max_length=24",
                          "--set",    "adapt.held_out_fraction=0.2",
                          "--set",    "adapt.batch_size=8",
                          "--set",    "train.threads=1"});
  ASSERT_EQ(run.code, 0) << run.err;
  const auto result = Json::parse(run.out)["adapt"];
  EXPECT_LT(result["after"]["perplexity"].get<double>(), 0.8 * result["before"]["perplexity"].get<double>());
  EXPECT_NE(run.err.find("held-out perplexity"), std::string::npos) << run.err;
  EXPECT_EQ(config()["architectures"][0], "BertForMaskedLM");
  EXPECT_TRUE(std::filesystem::exists(model() / "vocab.txt"));
  const auto recipe = tests::read_text(scratch / "run" / "recipe.toml");
  EXPECT_NE(recipe.find("mask_probability = 0.3"), std::string::npos);
  EXPECT_NE(recipe.find("whole_words = true"), std::string::npos);
  EXPECT_EQ(journalled("start")["event"], "start");
  EXPECT_TRUE(journalled("test").is_null());

  // It is a source like any other.
  std::filesystem::rename(scratch / "run", scratch / "adapted");
  std::filesystem::remove_all(scratch / "source");
  std::filesystem::rename(scratch / "adapted" / "model", scratch / "source");
  EXPECT_GT(finetuned({})["test"]["accuracy"], 0.8);
}

}  // namespace
}  // namespace graft
