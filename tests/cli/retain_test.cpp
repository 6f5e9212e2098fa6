// A model that knows one task learns another: what is kept, what is reported, and that a resume changes nothing.
#include <gtest/gtest.h>

#include "graft/report/journal.h"
#include "graft/retain/anchors.h"
#include "tests/cli/program.h"

namespace graft {
namespace {

using tests::graft;
using tests::Scratch;

/// A source with a trained head ("first/model"), and other labels for the same words ("second").
void write_two_tasks(const Scratch& scratch) {
  auto first = tests::short_run(scratch, "first");
  for (const auto* setting :
       {"finetune.head.epochs=10", "finetune.unfreeze.epochs=10", "finetune.unfreeze.learning_rate=3e-3",
        "finetune.unfreeze.head_learning_rate=3e-3", "finetune.full.learning_rate=1e-3", "retain.report=false"})
    first.insert(first.end(), {"--set", setting});
  ASSERT_EQ(graft(first).code, 0);
  std::filesystem::create_directories(scratch / "second");
  const std::vector<std::string> telling{"camera", "music", "script"};
  for (const auto* split : {"train", "validation", "test"}) {
    std::istringstream lines(tests::read_text(scratch / "data" / (std::string(split) + ".jsonl")));
    std::string text;
    size_t row = 0;
    for (std::string line; std::getline(lines, line); ++row) {
      std::istringstream words(Json::parse(line)["text"].get<std::string>());
      std::string sentence;
      for (std::string word; words >> word;) {
        if (std::find(telling.begin(), telling.end(), word) != telling.end()) word = "the";
        if (word == "good" || word == "bad") word = telling[row % 3];
        sentence += (sentence.empty() ? "" : " ") + word;
      }
      text += Json{{"text", sentence}, {"label", telling[row % 3]}}.dump() + "\n";
    }
    tests::write_text(scratch / "second" / (std::string(split) + ".jsonl"), text);
  }
}

std::vector<std::string> second_run(const Scratch& scratch, const std::string& out,
                                    const std::vector<std::string>& settings) {
  std::vector<std::string> arguments{"run",
                                     "--quiet",
                                     "--json",
                                     "--source",
                                     (scratch / "first/model").string(),
                                     "--data",
                                     (scratch / "second").string(),
                                     "--out",
                                     (scratch / out).string()};
  std::vector<std::string> all{"finetune.head.epochs=4",
                               "finetune.head.min_epochs=1",
                               "finetune.head.learning_rates=[1e-2]",
                               "finetune.head.weight_decays=[0.01]",
                               "finetune.head.verdict=false",
                               "finetune.unfreeze.max_units=2",
                               "finetune.unfreeze.epochs=8",
                               "finetune.unfreeze.learning_rate=3e-3",
                               "finetune.unfreeze.head_learning_rate=3e-3",
                               "finetune.unfreeze.patience_units=0",
                               "finetune.full.when=always",
                               "finetune.full.epochs=6",
                               "finetune.full.learning_rate=3e-3",
                               "train.checkpoint_seconds=0",
                               "train.batch_size=16",
                               "train.threads=1"};
  all.insert(all.end(), settings.begin(), settings.end());
  for (const auto& setting : all) arguments.insert(arguments.end(), {"--set", setting});
  return arguments;
}

/// Judged on the 64 examples that the source was trained with: those it knows, whatever so small a model generalises.
std::vector<std::string> source_data(const Scratch& scratch) {
  const auto file = [&](const char* split) { return (scratch / "data" / split).string(); };
  return {"retain.source_data.train=" + file("train.jsonl"),
          "retain.source_data.validation=" + file("validation.jsonl"),
          "retain.source_data.test=" + file("train.jsonl")};
}

std::vector<std::string> with_source_data(const Scratch& scratch, std::vector<std::string> settings) {
  for (const auto& setting : source_data(scratch)) settings.push_back(setting);
  return settings;
}

double kept(const Json& result) { return result["finetune"]["phases"].back()["retained"]["value"]; }

TEST(Retain, EveryRunReportsWhatTheSourceLost) {
  const Scratch scratch;
  write_two_tasks(scratch);
  const auto free = graft(second_run(scratch, "free", with_source_data(scratch, {})));
  ASSERT_EQ(free.code, 0) << free.err;
  const auto result = Json::parse(free.out);
  const double before = result["retained"]["source"]["value"];
  EXPECT_GE(before, 0.9) << "of the 64 examples that the source was trained with";
  EXPECT_EQ(result["retained"]["source"]["cka"], 1);
  const auto& phases = result["finetune"]["phases"];
  EXPECT_EQ(phases[0]["retained"], result["retained"]["source"]) << "the head phase moves no block";
  EXPECT_LT(phases.back()["retained"]["cka"], 0.999);
  // The command measures what the run measured.
  const auto measured = graft({"retain", "measure", "--json", (scratch / "first/model").string(),
                               (scratch / "free/model").string(), "--data", (scratch / "data/train.jsonl").string()});
  ASSERT_EQ(measured.code, 0) << measured.err;
  const auto answer = Json::parse(measured.out);
  EXPECT_EQ(answer["before"]["value"], before);
  EXPECT_EQ(answer["after"]["value"].get<double>(), kept(result));

  // Without the source's data: agreement with its answers, on the new examples.
  const auto blind = graft(second_run(scratch, "blind", {}));
  ASSERT_EQ(blind.code, 0) << blind.err;
  const auto seen = Json::parse(blind.out)["finetune"]["phases"].back()["retained"];
  EXPECT_FALSE(seen.contains("value"));
  EXPECT_LE(seen["agreement"], 1);
  EXPECT_EQ(tests::read_text(scratch / "blind/model/model.safetensors"),
            tests::read_text(scratch / "free/model/model.safetensors"))
      << "measuring changes nothing";
}

TEST(Retain, StrongTermsKeepTheSource) {
  const Scratch scratch;
  write_two_tasks(scratch);
  const auto cka = [&](const std::string& out, std::vector<std::string> settings) {
    const auto run = graft(second_run(scratch, out, with_source_data(scratch, std::move(settings))));
    EXPECT_EQ(run.code, 0) << run.err;
    return Json::parse(run.out);
  };
  cka("lwf", {"retain.lwf.weight=1"});
  const auto free = cka("free", {}), l2sp = cka("l2sp", {"retain.l2sp=100"}),
             ewc = cka("ewc", {"retain.ewc.strength=1e6"}), replay = cka("replay", {"retain.replay.fraction=0.5"});
  const auto drift = [](const Json& result) {
    return 1 - result["finetune"]["phases"].back()["retained"]["cka"].get<double>();
  };
  EXPECT_LT(drift(l2sp), 0.5 * drift(free));
  EXPECT_LT(drift(ewc), drift(free));
  for (const auto* result : {&l2sp, &ewc, &replay}) EXPECT_GE(kept(*result), kept(free));
  // Each term says what it cost and how large it was.
  for (const std::string term : {"l2sp", "lwf", "ewc", "replay"}) {
    const report::Journal journal(scratch / term / "journal.jsonl");
    bool told = false;
    for (const auto& entry : journal.entries())
      if (entry["event"] == "epoch" && entry["phase"] == "full") {
        EXPECT_GT(entry["terms"][term]["value"], 0) << term;
        told = entry["terms"][term].contains("seconds");
      }
    EXPECT_TRUE(told) << term;
  }
}

TEST(Retain, TheFisherIsPreparedAndCarriedWithTheModel) {
  const Scratch scratch;
  write_two_tasks(scratch);
  const auto file = (scratch / "first/model/fisher.safetensors").string();
  for (const auto* labels : {"given", "own"}) {
    const auto made = graft({"retain", "fisher", "--json", "--model", (scratch / "first/model").string(), "--data",
                             (scratch / "data").string(), "--labels", labels, "--out", file});
    ASSERT_EQ(made.code, 0) << made.err;
    const auto anchors = retain::read_anchors(file);
    EXPECT_EQ(anchors.domains[0]["labels"], labels);
    EXPECT_EQ(anchors.domains[0]["examples"], 64);
    EXPECT_GT(anchors.of.at("classifier.weight").fisher.sum().item<float>(), 0);
  }
  const auto run = graft(second_run(scratch, "run", {"retain.ewc.strength=10"}));
  ASSERT_EQ(run.code, 0) << run.err;
  EXPECT_FALSE(std::filesystem::exists(scratch / "run/fisher.safetensors"))
      << "the one that the source brings was taken";
  const auto added = graft({"retain", "fisher", "--json", "--model", (scratch / "run/model").string(), "--data",
                            (scratch / "second").string(), "--add", file, "--decay", "0.5", "--out",
                            (scratch / "run/model/fisher.safetensors").string()});
  ASSERT_EQ(added.code, 0) << added.err;
  EXPECT_EQ(Json::parse(added.out)["domains"].size(), 2u);
}

TEST(Retain, ABudgetIsKeptOnTheWayBackToTheSource) {
  const Scratch scratch;
  write_two_tasks(scratch);
  const auto run = graft(second_run(scratch, "run", with_source_data(scratch, {"retain.max_forgetting=0"})));
  ASSERT_EQ(run.code, 0) << run.err;
  const auto result = Json::parse(run.out)["retained"];
  const std::string metric = Json::parse(run.out)["finetune"]["metric"];
  ASSERT_EQ(result["path"].size(), 11u);
  EXPECT_EQ(result["path"][0]["retained"]["value"], result["source"]["value"]);
  EXPECT_EQ(result["path"][10]["retained"]["value"],
            Json::parse(run.out)["finetune"]["phases"].back()["retained"]["value"]);
  EXPECT_GE(result["taken"]["retained"]["value"], result["source"]["value"]);
  for (const auto& point : result["path"])
    if (point["retained"]["value"] >= result["source"]["value"]) {
      EXPECT_GE(result["taken"][metric], point[metric]) << "a better point keeps the budget too";
    }
  // The exported model is that point.
  const auto measured = graft({"retain", "measure", "--json", (scratch / "first/model").string(),
                               (scratch / "run/model").string(), "--data", (scratch / "data/train.jsonl").string()});
  EXPECT_EQ(Json::parse(measured.out)["after"]["value"], result["taken"]["retained"]["value"]);
}

TEST(Retain, RefusesWhatCannotBeBeforeAnythingIsLoaded) {
  const Scratch scratch;
  tests::short_run(scratch, "x");
  auto arguments = tests::short_run(scratch, "run");
  arguments.insert(arguments.end(), {"--set", "retain.replay.fraction=0.1"});
  const auto run = graft(arguments);
  EXPECT_EQ(run.code, 2);
  EXPECT_NE(run.err.find("retain.source_data.path: is missing"), std::string::npos) << run.err;
  auto headless = tests::short_run(scratch, "headless");
  headless.insert(headless.end(), {"--set", "retain.source_data.path=" + (scratch / "data").string()});
  const auto refused = graft(headless);
  EXPECT_EQ(refused.code, 2);
  EXPECT_NE(refused.err.find("has no trained head"), std::string::npos) << refused.err;
}

TEST(RetainSlow, ResumedAfterAKillItEndsWithTheSameBytes) {
  const Scratch scratch;
  write_two_tasks(scratch);
  const auto settings =
      with_source_data(scratch, {"retain.ewc.strength=100", "retain.l2sp=0.1", "retain.lwf.weight=1",
                                 "retain.interpolate=true", "retain.replay.fraction=0.2", "retain.replay.size=20"});
  ASSERT_EQ(graft(second_run(scratch, "whole", settings)).code, 0);
  const auto expected = tests::run_fingerprint(scratch / "whole");
  int killed = 0;
  for (const int operation : {5, 20, 41, 75, 110, 160, 210, 260, 330}) {
    const auto name = "run" + std::to_string(operation);
    const auto first =
        graft(second_run(scratch, name, settings), "", {"GRAFT_TEST_FAULT=kill:" + std::to_string(operation)});
    if (first.code == 0) continue;
    ASSERT_EQ(first.code, 128 + SIGKILL) << first.err;
    ++killed;
    auto again = second_run(scratch, name, settings);
    if (std::filesystem::exists(scratch / name / "recipe.toml"))
      again = {"run", "--quiet", "--resume", (scratch / name).string()};
    const auto resumed = graft(again);
    ASSERT_EQ(resumed.code, 0) << "operation " << operation << ": " << resumed.err;
    EXPECT_EQ(tests::run_fingerprint(scratch / name), expected) << "operation " << operation;
  }
  EXPECT_GE(killed, 5);
}

}  // namespace
}  // namespace graft
