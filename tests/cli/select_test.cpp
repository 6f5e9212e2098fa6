// graft select, and a run that chooses its source itself, on tiny sources of which one knows the words that tell.
#include <gtest/gtest.h>

#include "graft/io/safetensors.h"
#include "graft/models/loading.h"
#include "graft/report/journal.h"
#include "tests/cli/program.h"

namespace graft {
namespace {

namespace fs = std::filesystem;
using tests::graft;
using tests::Scratch;

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

/// A source like the tiny one, but to it every word is the same.
void write_deaf_source(const fs::path& folder) {
  tests::write_tiny_source(folder);
  auto file = io::read_safetensors(folder / "model.safetensors");
  std::map<std::string, torch::Tensor> tensors;
  for (const auto& [name, view] : file.tensors) {
    tensors[name] = models::to_tensor(name, view).clone();
    if (name.ends_with("word_embeddings.weight")) tensors[name].fill_(0.01);
  }
  io::write_safetensors(folder / "model.safetensors", models::to_views(tensors));
}

struct SelectCommand : testing::Test {
  SelectCommand() {
    tests::write_tiny_source(scratch / "source");
    tests::write_tiny_data(scratch / "data");
    write_deaf_source(scratch / "deaf");
  }
  std::string path(const char* name) const { return (scratch / name).string(); }
  std::vector<std::string> select(const std::vector<std::string>& candidates,
                                  const std::vector<std::string>& more = {}) const {
    std::vector<std::string> arguments{"select",     "--quiet", "--json",         "--data",
                                       path("data"), "--set",   "train.threads=1"};
    for (const auto& candidate : candidates) arguments.insert(arguments.end(), {"--candidate", candidate});
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }
  Scratch scratch;
};

TEST_F(SelectCommand, RanksTheCandidatesAndSaysWhy) {
  fs::create_directories(scratch / "empty");
  const auto outcome = graft(select({path("deaf"), path("empty"), path("source")}));
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const auto answer = Json::parse(outcome.out);
  EXPECT_EQ(answer["winner"], "source");
  EXPECT_EQ(answer["pinned"], path("source"));
  EXPECT_EQ(answer["examples"], 64);
  ASSERT_EQ(answer["ranking"].size(), 2);
  for (const auto& item : answer["ranking"]) {
    for (const auto* score : {"log_me", "h_score", "trans_rate", "parc", "nearest_neighbours", "linear_probe"})
      EXPECT_TRUE(item["scores"].contains(score)) << score;
    EXPECT_GT(item["seconds_per_epoch"], 0);
    EXPECT_GT(item["memory_bytes"], 0);
    EXPECT_GT(item["parameters"], 1000);
  }
  EXPECT_EQ(answer["ranking"][0]["source"], "source");
  EXPECT_GT(answer["ranking"][0]["scores"]["linear_probe"], answer["ranking"][1]["scores"]["linear_probe"]);
  ASSERT_EQ(answer["dropped"].size(), 1);
  EXPECT_EQ(answer["dropped"][0]["source"], path("empty"));
  EXPECT_TRUE(has(answer["dropped"][0]["reason"], "no weights found")) << answer["dropped"].dump();

  auto table = select({path("deaf"), path("source")});
  table.erase(std::find(table.begin(), table.end(), "--json"));
  const auto printed = graft(table);
  EXPECT_TRUE(has(printed.out, "source is taken") && has(printed.out, "graft run --source " + path("source")))
      << printed.out;
}

TEST_F(SelectCommand, HalvingTrainsHeadsAndSharesTheStores) {
  const auto outcome = graft(select({path("deaf"), path("source")}, {"--halving", "--features", path("features")}));
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const auto answer = Json::parse(outcome.out);
  EXPECT_EQ(answer["winner"], "source");
  EXPECT_EQ(answer["ranking"][0]["rounds"][0]["epochs"], 2);
  const auto stores = std::distance(fs::directory_iterator(scratch / "features"), fs::directory_iterator{});
  EXPECT_EQ(stores, 4);  // two sources, training and validation
  const auto again = graft(select({path("deaf"), path("source")}, {"--halving", "--features", path("features")}));
  EXPECT_EQ(std::distance(fs::directory_iterator(scratch / "features"), fs::directory_iterator{}), stores);
  for (const auto& item : Json::parse(again.out)["ranking"]) EXPECT_EQ(item["seconds_capture"], 0);
}

TEST_F(SelectCommand, OtherTasksHaveTheirScores) {
  std::string values, sets, words;
  for (int i = 0; i < 40; ++i) {
    const std::string telling = i % 2 ? "good" : "bad", text = "the film was " + telling + " and quite the plot";
    values += Json{{"text", text}, {"label", i % 2 ? 1.5 : -0.5}}.dump() + "\n";
    sets += Json{{"text", text}, {"label", i % 2 ? Json{"a"} : Json{"a", "b"}}}.dump() + "\n";
    words += Json{{"text", {"the", telling, "film"}}, {"label", {"O", i % 2 ? "B-X" : "B-Y", "O"}}}.dump() + "\n";
  }
  for (const auto& [task, rows] : {std::pair{"regression", values}, {"multilabel", sets}, {"tokens", words}}) {
    tests::write_text(scratch / "rows.jsonl", rows);
    const auto outcome =
        graft({"select", "--quiet", "--json", "--data", path("rows.jsonl"), "--candidate", path("deaf"), "--candidate",
               path("source"), "--set", std::string("data.task=") + task, "--set", "train.threads=1"});
    ASSERT_EQ(outcome.code, 0) << task << outcome.err;
    const auto answer = Json::parse(outcome.out);
    EXPECT_EQ(answer["ranking"].size(), 2) << task << outcome.out;
    EXPECT_EQ(answer["ranking"][0]["source"], "source") << task << outcome.out;
  }
}

TEST_F(SelectCommand, WhatCannotBeMeasuredIsRefusedWithTheReason) {
  const auto missing = graft(select({path("empty"), path("nowhere")}));
  EXPECT_EQ(missing.code, 4);
  EXPECT_TRUE(has(missing.err, "none of the 2 candidates could be measured")) << missing.err;

  std::string rows;
  for (int i = 0; i < 30; ++i) rows += Json{{"text", "the film"}, {"label", i < 27 ? "often" : "seldom"}}.dump() + "\n";
  tests::write_text(scratch / "few/train.jsonl", rows);
  tests::write_text(scratch / "few/validation.jsonl", rows);
  const auto few = graft({"select", "--quiet", "--data", path("few"), "--candidate", path("source")});
  EXPECT_EQ(few.code, 3);
  EXPECT_TRUE(has(few.err, "5 of each class are needed") && has(few.err, "seldom (3)")) << few.err;

  const auto absent = graft({"select", "--quiet", "--data", path("no_such_folder"), "--candidate", path("source")});
  EXPECT_NE(absent.code, 0);
  EXPECT_TRUE(has(absent.err, "no_such_folder")) << absent.err;
  const auto sizes = graft(select({}, {"--max-size", "1KB"}));
  EXPECT_EQ(sizes.code, 2);
  EXPECT_TRUE(has(sizes.err, "Nearest are")) << sizes.err;
}

TEST_F(SelectCommand, ARunTakesTheBestSourceAndItsFeatures) {
  auto arguments = tests::short_run(scratch, "run");
  *(std::find(arguments.begin(), arguments.end(), "--source") + 1) = "auto";
  const auto corpus = std::find(arguments.begin(), arguments.end(), "--corpus");
  arguments.erase(corpus, corpus + 2);
  arguments.erase(std::find(arguments.begin(), arguments.end(), "--quiet"));
  arguments.insert(arguments.end(),
                   {"--set", "select.candidates=[\"" + path("deaf") + "\", \"" + path("source") + "\"]"});
  const auto run = graft(arguments);
  ASSERT_EQ(run.code, 0) << run.err;
  const auto result = Json::parse(run.out);
  EXPECT_EQ(result["select"]["winner"], "source");
  EXPECT_TRUE(has(tests::read_text(scratch / "run/recipe.toml"), path("source")));
  EXPECT_TRUE(has(tests::read_text(scratch / "run/journal.jsonl"), "\"event\":\"select\""));
  // The training examples' features were there; those of the validation examples were not.
  EXPECT_FALSE(has(run.err, "computed once for 64 training examples")) << run.err;
  EXPECT_TRUE(has(run.err, "computed once for 32 validation examples")) << run.err;
  EXPECT_EQ(graft(arguments).code, 2) << "the folder holds a run";

  // The same run with the winner named ends with the same weights.
  auto named = arguments;
  *(std::find(named.begin(), named.end(), "--source") + 1) = path("source");
  *(std::find(named.begin(), named.end(), "--out") + 1) = path("named");
  ASSERT_EQ(graft(named).code, 0);
  EXPECT_EQ(tests::read_text(scratch / "run/model/model.safetensors"),
            tests::read_text(scratch / "named/model/model.safetensors"));

  // Killed while it measures, and in the middle of its phases: it ends as the unbroken run.
  *(std::find(arguments.begin(), arguments.end(), "--out") + 1) = path("killed");
  EXPECT_EQ(graft(arguments, "", {"GRAFT_TEST_FAULT=kill:3:features"}).code, 128 + 9);
  EXPECT_EQ(
      graft({"run", "--quiet", "--json", "--resume", path("killed")}, "", {"GRAFT_TEST_FAULT=kill:9:checkpoints"}).code,
      128 + 9);
  const auto resumed = graft({"run", "--quiet", "--json", "--resume", path("killed")});
  ASSERT_EQ(resumed.code, 0) << resumed.err;
  EXPECT_EQ(tests::read_text(scratch / "run/model/model.safetensors"),
            tests::read_text(scratch / "killed/model/model.safetensors"));
}

}  // namespace
}  // namespace graft
