// graft select, and a run that chooses its source itself, on tiny sources of which one knows the words that tell.
#include <gtest/gtest.h>

#include <cmath>

#include "graft/io/safetensors.h"
#include "graft/models/loading.h"
#include "graft/report/journal.h"
#include "tests/cli/program.h"

namespace graft {
namespace {

namespace fs = std::filesystem;
using tests::graft;
using tests::has;
using tests::Scratch;

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
  EXPECT_EQ(answer["training_examples"], 64);
  EXPECT_EQ(answer["data"]["modality"], "text");
  EXPECT_TRUE(has(answer["data"]["reasons"][0], "texts in column `text`")) << answer["data"].dump();
  EXPECT_EQ(answer["runner_up"]["source"], "deaf");
  // 64 examples need not tell the two apart; what is said to people is the same.
  EXPECT_EQ(answer["runner_up"]["level"].get<bool>(), has(answer["sentence"], "cannot tell from it")) << answer.dump();
  ASSERT_EQ(answer["ranking"].size(), 2);
  for (const auto& item : answer["ranking"]) {
    EXPECT_LT(item["combined_interval"][0], item["combined"]);
    EXPECT_GT(item["combined_interval"][1], item["combined"]);
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
  for (const auto* part : {"combined (95 %)", "  seconds ", "modality text, domain not shown: texts in column `text`",
                           "Measured on 64 of 64 training examples"})
    EXPECT_TRUE(has(printed.out, part)) << part << "\n" << printed.out;
}

TEST_F(SelectCommand, HalvingTrainsHeadsAndSharesTheStores) {
  // One word tells the classes apart, so that a head of two epochs knows them where words are heard.
  for (const auto& [split, count] : {std::pair{"train", 64}, {"validation", 32}}) {
    std::string rows;
    for (int i = 0; i < count; ++i)
      rows += Json{{"text", std::string("the film was ") + (i % 2 ? "good" : "bad")}, {"label", i % 2 ? "yes" : "no"}}
                  .dump() +
              "\n";
    tests::write_text(scratch / "data" / (std::string(split) + ".jsonl"), rows);
  }
  fs::remove(scratch / "data" / "test.jsonl");
  const auto command = select({path("deaf"), path("source")},
                              {"--halving", "--features", path("features"), "--set", "train.batch_size=2"});
  const auto outcome = graft(command);
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const auto answer = Json::parse(outcome.out);
  EXPECT_EQ(answer["winner"], "source") << answer.dump();
  EXPECT_EQ(answer["ranking"][0]["rounds"][0]["epochs"], 2);
  const auto stores = std::distance(fs::directory_iterator(scratch / "features"), fs::directory_iterator{});
  EXPECT_EQ(stores, 6);  // two sources: training with its mean, validation
  const auto again = graft(command);
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
  // The same for the other tasks: it is the data, whatever the candidate.
  std::string values, sets, words;
  for (int i = 0; i < 9; ++i) {
    values += Json{{"text", "the film"}, {"label", i}}.dump() + "\n";
    sets += Json{{"text", "the film"}, {"label", i < 2 ? Json{"often", "seldom"} : Json{"often"}}}.dump() + "\n";
    words += Json{{"text", {"the", "film"}}, {"label", {"O", i < 2 ? "B-X" : "O"}}}.dump() + "\n";
  }
  for (const auto& [task, text, said] :
       {std::tuple{"regression", values, "10 are needed, there are 9"},
        {"multilabel", sets, "5 of each label are needed, and these have fewer: seldom (2)"},
        {"tokens", words, "5 of each label are needed, and these have fewer: B-X (2)"}}) {
    tests::write_text(scratch / "few/train.jsonl", text);
    tests::write_text(scratch / "few/validation.jsonl", text);
    const auto outcome = graft({"select", "--quiet", "--data", path("few"), "--candidate", path("source"), "--set",
                                std::string("data.task=") + task});
    EXPECT_EQ(outcome.code, 3) << task << outcome.err;
    EXPECT_TRUE(has(outcome.err, said)) << task << outcome.err;
  }

  const auto absent = graft({"select", "--quiet", "--data", path("no_such_folder"), "--candidate", path("source")});
  EXPECT_NE(absent.code, 0);
  EXPECT_TRUE(has(absent.err, "no_such_folder")) << absent.err;
  const auto sizes = graft(select({}, {"--max-size", "1KB"}));
  EXPECT_EQ(sizes.code, 2);
  EXPECT_TRUE(has(sizes.err, "Nearest are")) << sizes.err;
}

TEST_F(SelectCommand, ASampleKeepsRareClassesAndAnEpochIsOfAllExamples) {
  std::string rows;
  for (int i = 0; i < 300; ++i)
    rows +=
        Json{{"text", i % 50 ? "the good film" : "a bad film"}, {"label", i % 50 ? "often" : "seldom"}}.dump() + "\n";
  tests::write_text(scratch / "many/train.jsonl", rows);
  tests::write_text(scratch / "many/validation.jsonl", rows);
  const auto outcome = graft({"select", "--quiet", "--json", "--data", path("many"), "--candidate", path("source"),
                              "--sample", "60", "--set", "train.threads=1"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const auto answer = Json::parse(outcome.out);
  EXPECT_EQ(answer["examples"], 60);
  EXPECT_EQ(answer["training_examples"], 300);
  const auto& item = answer["ranking"][0];
  EXPECT_NEAR(item["seconds_per_epoch"], 3 * item["seconds_capture"].get<double>() / 60 * 300, 1e-9);
}

TEST_F(SelectCommand, TheSampleIsAsLargeAsTheSecondsAllow) {
  std::string rows;
  for (int i = 0; i < 400; ++i)
    rows += Json{{"text", i % 2 ? "the good film" : "a bad film"}, {"label", i % 2 ? "yes" : "no"}}.dump() + "\n";
  tests::write_text(scratch / "many/train.jsonl", rows);
  tests::write_text(scratch / "many/validation.jsonl", rows);
  const auto examples = [&](const char* seconds) {
    auto outcome = graft({"select", "--json", "--data", path("many"), "--candidate", path("source"), "--candidate",
                          path("deaf"), "--set", std::string("select.seconds=") + seconds, "--set", "train.threads=1"});
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    EXPECT_TRUE(has(outcome.err, "s through all candidates, so ")) << outcome.err;
    return Json::parse(outcome.out)["examples"].get<int64_t>();
  };
  EXPECT_EQ(examples("0.0001"), 50);
  EXPECT_EQ(examples("1000"), 400);
}

TEST_F(SelectCommand, WordsAreComparedWhereAllSourcesSeeThem) {
  tests::write_tiny_source(scratch / "short");
  tests::write_text(scratch / "short/tokenizer_config.json",
                    R"({"do_lower_case": true, "tokenizer_class": "BertTokenizer", "model_max_length": 6})");
  std::string words;
  for (int i = 0; i < 40; ++i)
    words += Json{{"text", {"the", i % 2 ? "good" : "bad", "film", "was", "a", "very", "very", i % 2 ? "bad" : "good"}},
                  {"label", {"O", i % 2 ? "B-X" : "B-Y", "O", "O", "O", "O", "O", i % 2 ? "B-Y" : "B-X"}}}
                 .dump() +
             "\n";
  tests::write_text(scratch / "rows.jsonl", words);
  const auto measured = [&](const std::vector<std::string>& candidates) {
    std::vector<std::string> arguments{"select", "--quiet",          "--json", "--data",         path("rows.jsonl"),
                                       "--set",  "data.task=tokens", "--set",  "train.threads=1"};
    for (const auto& candidate : candidates)
      arguments.insert(arguments.end(), {"--candidate", path(candidate.c_str())});
    const auto outcome = graft(arguments);
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    return Json::parse(outcome.out);
  };
  const auto alone = measured({"source"})["ranking"][0]["words"].get<int64_t>();
  for (const auto& order : {std::vector<std::string>{"source", "short"}, {"short", "source"}}) {
    const auto answer = measured(order);
    ASSERT_EQ(answer["ranking"].size(), 2) << answer.dump();
    EXPECT_EQ(answer["dropped"].size(), 0);
    for (const auto& item : answer["ranking"]) EXPECT_EQ(item["words"].get<int64_t>(), alone / 2) << item.dump();
  }
}

TEST_F(SelectCommand, ASourceThatMemoryDoesNotHoldDropsOut) {
  tests::write_tiny_source(scratch / "huge");
  auto config = Json::parse(tests::read_text(scratch / "huge/config.json"));
  config["vocab_size"] = int64_t{1} << 44;
  tests::write_text(scratch / "huge/config.json", config.dump());
  const auto outcome = graft(select({path("huge"), path("source")}));
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const auto answer = Json::parse(outcome.out);
  EXPECT_EQ(answer["winner"], "source");
  EXPECT_EQ(answer["dropped"][0]["reason"], "it needs more memory than this machine has free");
}

TEST_F(SelectCommand, WithoutANetworkItSaysWhatIsHereAndWhatIsNeeded) {
  fs::create_directories(scratch / "home/hub/models--org--cached/snapshots/0123");
  const std::vector<std::string> offline{"HF_HOME=" + path("home"), "HF_HUB_CACHE=", "HF_HUB_OFFLINE=1"};
  const auto outcome = graft(select({"org/away", "google-bert/bert-base-uncased"}), "", offline);
  EXPECT_EQ(outcome.code, 8) << outcome.err;
  for (const auto* part :
       {"none of the 2 candidates could be measured", "HF_HUB_OFFLINE forbids",
        "Needed would be one of: org/away, google-bert/bert-base-uncased (440 MB)", "There are org/cached"})
    EXPECT_TRUE(has(outcome.err, part)) << part << "\n" << outcome.err;
  // What is here is measured, and nobody is asked twice.
  const auto some = graft(select({"org/away", "org/also_away", path("source")}), "", offline);
  ASSERT_EQ(some.code, 0) << some.err;
  const auto dropped = Json::parse(some.out)["dropped"];
  ASSERT_EQ(dropped.size(), 2);
  EXPECT_TRUE(has(dropped[0]["reason"], "HF_HUB_OFFLINE forbids")) << dropped.dump();
  EXPECT_TRUE(has(dropped[1]["reason"], "it is not on this machine, and nobody answers")) << dropped.dump();
  // The same for a run that selects.
  const auto run = graft({"run", "--quiet", "--source", "auto", "--data", path("data"), "--out", path("run"), "--set",
                          "select.candidates=[\"org/away\"]"},
                         "", offline);
  EXPECT_EQ(run.code, 8) << run.err;
}

TEST_F(SelectCommand, NoFittingCandidateNamesTheNearestThatRun) {
  const std::vector<std::string> home{"HF_HOME=" + path("home"), "HF_HUB_CACHE=", "HF_HUB_OFFLINE=1"};
  std::string rows;
  for (int i = 0; i < 20; ++i)
    rows +=
        Json{{"image", "a.png"}, {"text", "a film that was good and long"}, {"label", i % 2 ? "a" : "b"}}.dump() + "\n";
  tests::write_text(scratch / "both.jsonl", rows);
  const auto both = graft({"select", "--quiet", "--data", path("both.jsonl"), "--max-size", "100GB"}, "", home);
  EXPECT_EQ(both.code, 2) << both.err;
  EXPECT_TRUE(has(both.err, "no source of the list that fits (multimodal, any domain) can be used") &&
              has(both.err, "do not run in graft yet. Nearest that run are ") && has(both.err, "(image, "))
      << both.err;

  tests::write_text(scratch / "sources.toml",
                    "[[source]]\nid = 'lab/walled'\narchitecture = 'bert'\nlicence = 'walled'\ngated = true\n"
                    "download_mb = 10\n");
  const auto gated = graft(
      {"select", "--quiet", "--data", path("data"), "--licence", "walled", "--set", "sources=" + path("sources.toml")},
      "", home);
  EXPECT_EQ(gated.code, 2) << gated.err;
  EXPECT_TRUE(has(gated.err, "only sources behind a gate fit these data (text, any domain): lab/walled") &&
              has(gated.err, "nearest that run are nlpaueb/legal-bert-small-uncased (text, "))
      << gated.err;
}

TEST_F(SelectCommand, ADryRunTellsWhoWouldCompete) {
  const auto plan = graft({"run", "--dry-run", "--json", "--quiet", "--source", "auto", "--data", path("data"), "--out",
                           path("run"), "--set", "select.candidates=[\"" + path("source") + "\", \"org/away\"]"},
                          "", {"HF_HOME=" + path("home"), "HF_HUB_CACHE=", "HF_HUB_OFFLINE=1"});
  ASSERT_EQ(plan.code, 0) << plan.err;
  const auto answer = Json::parse(plan.out);
  EXPECT_EQ(answer["candidates"][0], (Json{{"source", path("source")}, {"here", true}, {"download_mb", 0}}));
  EXPECT_EQ(answer["candidates"][1]["here"], false);
  EXPECT_EQ(answer["data"]["modality"], "text");
  EXPECT_FALSE(fs::exists(scratch / "run"));
  const auto listed =
      graft({"run", "--dry-run", "--quiet", "--source", "auto", "--data", path("data"), "--out", path("run")}, "",
            {"HF_HOME=" + path("home"), "HF_HUB_CACHE=", "HF_HUB_OFFLINE=1"});
  EXPECT_EQ(listed.code, 0) << listed.err;
  EXPECT_TRUE(has(listed.out, "sources will be measured on your data") &&
              has(listed.out, "google-bert/bert-base-uncased") && has(listed.out, "MB to download"))
      << listed.out;
}

TEST_F(SelectCommand, ASourceWithAClassifierIsScoredByItsOwnClasses) {
  // The tiny source's files with the classifier of another fixture, which has as many words.
  for (const auto* name : {"config.json", "model.safetensors"})
    fs::copy_file(tests::fixture("parity/bert-seqcls/model") / name, scratch / "deaf" / name,
                  fs::copy_options::overwrite_existing);
  const auto alone = graft(select({path("deaf")}));
  ASSERT_EQ(alone.code, 0) << alone.err;
  const auto scores = Json::parse(alone.out)["ranking"][0]["scores"];
  EXPECT_LE(scores["leep"].get<double>(), 0) << scores.dump();
  EXPECT_LE(scores["nce"].get<double>(), 0);
  EXPECT_GE(scores["nce"].get<double>(), -std::log(2.0) - 1e-9) << "no worse than the balance of two classes";
  // A source without one has the other scores, and then they decide.
  const auto both = Json::parse(graft(select({path("deaf"), path("source")})).out);
  for (const auto& item : both["ranking"])
    EXPECT_EQ(item["scores"].contains("leep"), item["source"] == "deaf") << item.dump();
  EXPECT_EQ(both["best_by"].contains("leep"), both["best_by"].value("leep", "") == "deaf");
}

TEST_F(SelectCommand, ARunComputesOnlyWhatTheSampleLeftOut) {
  auto arguments = tests::short_run(scratch, "run");
  *(std::find(arguments.begin(), arguments.end(), "--source") + 1) = "auto";
  const auto corpus = std::find(arguments.begin(), arguments.end(), "--corpus");
  arguments.erase(corpus, corpus + 2);
  arguments.erase(std::find(arguments.begin(), arguments.end(), "--quiet"));
  arguments.insert(arguments.end(),
                   {"--set", "select.candidates=[\"" + path("deaf") + "\", \"" + path("source") + "\"]", "--set",
                    "select.sample=50"});
  const auto run = graft(arguments);
  ASSERT_EQ(run.code, 0) << run.err;
  EXPECT_TRUE(has(run.err, "computed once for 14 of 64 training examples")) << run.err;
  // Killed in the middle of its phases, and its stores lost with it: the same bytes.
  for (const bool lost : {false, true}) {
    const std::string name = lost ? "lost" : "killed";
    *(std::find(arguments.begin(), arguments.end(), "--out") + 1) = (scratch / name).string();
    EXPECT_EQ(graft(arguments, "", {"GRAFT_TEST_FAULT=kill:9:checkpoints"}).code, 128 + 9);
    if (lost) fs::remove_all(scratch / name / "features");
    const auto resumed = graft({"run", "--quiet", "--json", "--resume", (scratch / name).string()});
    ASSERT_EQ(resumed.code, 0) << resumed.err;
    EXPECT_EQ(tests::read_text(scratch / "run/model/model.safetensors"),
              tests::read_text(scratch / name / "model/model.safetensors"))
        << name;
  }
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
  const auto journal = tests::read_text(scratch / "run/journal.jsonl");
  EXPECT_TRUE(has(journal, "\"event\":\"select\"") && has(journal, "\"modality\":\"text\"") &&
              has(journal, "\"reasons\":[\"texts in column `text`") && has(journal, "\"runner_up\":{"))
      << journal;
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
