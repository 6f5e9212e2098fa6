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
       {"finetune.head.epochs=10", "finetune.unfreeze.epochs=25", "finetune.unfreeze.learning_rate=5e-3",
        "finetune.unfreeze.head_learning_rate=5e-3", "finetune.full.learning_rate=1e-3", "retain.report=false"})
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
                               "finetune.unfreeze.epochs=25",
                               "finetune.unfreeze.learning_rate=5e-3",
                               "finetune.unfreeze.head_learning_rate=5e-3",
                               "finetune.unfreeze.patience_units=0",
                               "finetune.full.when=always",
                               "finetune.full.epochs=30",
                               "finetune.full.learning_rate=5e-3",
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
  return {"retain.source_data.train=" + file("train.jsonl"), "retain.source_data.validation=" + file("train.jsonl"),
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
  EXPECT_DOUBLE_EQ(result["retained"]["source"]["cka"].get<double>(), 1);
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
  const auto carried = retain::read_anchors(scratch / "run/model/fisher.safetensors");
  EXPECT_EQ(carried.domains.size(), 2u) << "the source's and the new task's";
  const auto added = graft({"retain", "fisher", "--json", "--model", (scratch / "run/model").string(), "--data",
                            (scratch / "second").string(), "--add", file, "--decay", "0.5", "--out",
                            (scratch / "run/model/fisher.safetensors").string()});
  ASSERT_EQ(added.code, 0) << added.err;
  EXPECT_EQ(Json::parse(added.out)["domains"].size(), 2u);
}

std::vector<Json> entries_of(const Scratch& scratch, const std::string& run, const std::string& event) {
  std::vector<Json> chosen;
  for (const auto& entry : report::Journal(scratch / run / "journal.jsonl").entries())
    if (entry["event"] == event) chosen.push_back(entry);
  return chosen;
}

TEST(Retain, TheResultCarriesTheProtectionOfAllThatWasLearned) {
  const Scratch scratch;
  write_two_tasks(scratch);
  const auto file = [&](const std::string& run) { return scratch / run / "model/fisher.safetensors"; };
  const auto learn = [&](const std::string& out, const std::string& decay) {
    const auto run = graft(second_run(scratch, out, {"retain.ewc.strength=10", "retain.ewc.decay=" + decay}));
    ASSERT_EQ(run.code, 0) << run.err;
    EXPECT_GT(Json::parse(run.out)["retained"]["prepared"]["carried"]["seconds"], 0);
  };
  learn("all", "1");
  learn("half", "0.5");
  learn("none", "0");
  const auto all = retain::read_anchors(file("all")), half = retain::read_anchors(file("half")),
             none = retain::read_anchors(file("none")),
             before = retain::read_anchors(scratch / "all/fisher.safetensors");
  const std::string key = "bert.encoder.layer.1.intermediate.dense.weight", head = "classifier.weight";
  // F = decay * F_before + F_now, anchored at what was exported; nothing of the old head is added to the new one.
  EXPECT_GT(before.of.at(key).fisher.abs().max().item<float>(), 0);
  for (const auto& [decay, anchors] : {std::pair{1.0, &all}, {0.5, &half}})
    EXPECT_TRUE(torch::allclose(anchors->of.at(key).fisher, none.of.at(key).fisher + decay * before.of.at(key).fisher,
                                1e-5, 0));
  EXPECT_TRUE(all.of.at(head).fisher.equal(none.of.at(head).fisher));
  EXPECT_FALSE(all.of.at(key).at.equal(before.of.at(key).at));
  // The next run from that model finds it, and adds a third domain.
  auto third = second_run(scratch, "third", {"retain.ewc.strength=10"});
  third[4] = (scratch / "all/model").string();
  third[6] = (scratch / "data").string();
  const auto run = graft(third);
  ASSERT_EQ(run.code, 0) << run.err;
  EXPECT_FALSE(std::filesystem::exists(scratch / "third/fisher.safetensors"));
  EXPECT_EQ(retain::read_anchors(file("third")).domains.size(), 3u);
  const auto own = graft(second_run(scratch, "own", {"retain.ewc.strength=10", "retain.ewc.labels=own"}));
  ASSERT_EQ(own.code, 0) << own.err;
  EXPECT_EQ(retain::read_anchors(file("own")).domains.back()["labels"], "own");
  EXPECT_EQ(all.domains.back()["labels"], "given");
  const auto off = graft(second_run(scratch, "off", {"retain.ewc.strength=10", "retain.ewc.carry=false"}));
  ASSERT_EQ(off.code, 0) << off.err;
  EXPECT_FALSE(std::filesystem::exists(file("off")));
}

TEST(Retain, AnEpochOverTheBudgetStrengthensTheTerms) {
  const Scratch scratch;
  write_two_tasks(scratch);
  const auto run = graft(second_run(
      scratch, "run",
      with_source_data(
          scratch, {"retain.max_forgetting=0", "retain.l2sp=1e-4", "retain.replay.fraction=0.1",
                    "retain.lwf.weight=0.01", "retain.strengthened=[\"l2sp\",\"replay\"]", "retain.strengthen_by=3"})));
  ASSERT_EQ(run.code, 0) << run.err;
  double strength = 1e-4;
  size_t over = 0;
  for (const auto& decision : entries_of(scratch, "run", "decision")) {
    if (decision["about"] != "forgetting") continue;
    ++over;
    EXPECT_GT(decision["lost"], 0);
    EXPECT_EQ(decision["budget"], 0);
    strength *= 3;
    EXPECT_NEAR(decision["strengthened"]["l2sp"], strength, 1e-9 * strength);
    EXPECT_FALSE(decision["strengthened"].contains("lwf")) << "it was not chosen";
    EXPECT_NE(
        decision["reason"].get<std::string>().find("more than the 0 of retain.max_forgetting: strengthened l2sp to"),
        std::string::npos)
        << decision["reason"];
    if (decision["strengthened"].contains("replay")) {
      EXPECT_LE(decision["strengthened"]["replay"], 0.5) << "at most as many old examples as new ones";
    }
  }
  // One for each epoch of unfreezing and full fine-tuning that lost anything; none for the head.
  const auto retained = Json::parse(run.out)["retained"];
  size_t lost = 0;
  for (const auto& point : retained["curve"]) lost += point["lost"] > 0;
  EXPECT_GT(over, 0u);
  EXPECT_EQ(over, lost);
  EXPECT_EQ(retained["curve"][0]["phase"], "head");
  EXPECT_EQ(retained["curve"][0]["gain"], 0);
  EXPECT_EQ(retained["curve"][0]["lost"], 0);
  EXPECT_EQ(retained["curve"].size(), entries_of(scratch, "run", "watched").size());
  const auto terms = Json::parse(run.out)["finetune"]["terms"];
  for (const auto* name : {"l2sp", "replay", "lwf"}) EXPECT_GT(terms[name]["seconds"], 0) << name;

  const auto alone = graft(second_run(scratch, "alone", with_source_data(scratch, {"retain.max_forgetting=0"})));
  ASSERT_EQ(alone.code, 0) << alone.err;
  bool told = false;
  for (const auto& decision : entries_of(scratch, "alone", "decision"))
    told |= decision["reason"].get<std::string>().ends_with("no term is there that could be strengthened");
  EXPECT_TRUE(told);
}

TEST(Retain, WhatChoosesIsNotWhatReports) {
  const Scratch scratch;
  write_two_tasks(scratch);
  const auto asked = [&](const std::string& out, std::vector<std::string> settings) {
    settings.push_back("retain.max_forgetting=0.5");
    settings.push_back("retain.source_data.train=" + (scratch / "data/train.jsonl").string());
    const auto run = graft(second_run(scratch, out, settings));
    EXPECT_EQ(run.code, 0) << run.err;
    const auto retained = Json::parse(run.out)["retained"];
    EXPECT_EQ(retained["at_first"], retained["path"][0]["retained"]);
    EXPECT_EQ(retained["result"]["examples"], retained["source"]["examples"]);
    return std::pair<int64_t, int64_t>(retained["at_first"]["examples"], retained["source"]["examples"]);
  };
  const auto file = [&](const char* split) { return (scratch / "data" / split).string(); };
  EXPECT_EQ(asked("both", {"retain.source_data.validation=" + file("validation.jsonl"),
                           "retain.source_data.test=" + file("test.jsonl")}),
            (std::pair<int64_t, int64_t>(32, 16)));
  EXPECT_EQ(asked("halves", {"retain.source_data.validation=" + file("validation.jsonl")}),
            (std::pair<int64_t, int64_t>(16, 16)));
  // Without source data, halves of the new examples are compared.
  const auto blind = graft(second_run(scratch, "blind", {"retain.max_forgetting=0.5"}));
  ASSERT_EQ(blind.code, 0) << blind.err;
  const auto retained = Json::parse(blind.out)["retained"];
  EXPECT_EQ(retained["at_first"]["compared_on"], 16);
  EXPECT_EQ(retained["source"]["compared_on"], 16);
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
  // It begins at the source's blocks with the head that learned on them: what the head phase reached, and nothing lost.
  EXPECT_NEAR(result["path"][0][metric], Json::parse(run.out)["finetune"]["phases"][0]["validation"], 1e-6);
  EXPECT_EQ(result["result"]["value"], result["taken"]["retained"]["value"]);
  bool none = true;
  for (size_t i = 1; i < 11; ++i) none &= result["path"][i]["retained"]["value"] < result["source"]["value"];
  EXPECT_EQ(result["taken"]["none_but_the_source"], none);
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

TEST(Retain, AGrowingClassSetIsHeldByReplayAloneAndSaysSo) {
  const Scratch scratch;
  write_two_tasks(scratch);
  std::filesystem::create_directories(scratch / "more");
  for (const auto* split : {"train", "validation", "test"}) {
    std::istringstream lines(tests::read_text(scratch / "data" / (std::string(split) + ".jsonl")));
    std::string text;
    size_t row = 0;
    for (std::string line; std::getline(lines, line); ++row) {
      auto example = Json::parse(line);
      if (row % 3 == 0) example["label"] = "undecided";
      text += example.dump() + "\n";
    }
    tests::write_text(scratch / "more" / (std::string(split) + ".jsonl"), text);
  }
  const auto told = [&](const std::string& out, const std::vector<std::string>& settings) {
    auto arguments = second_run(scratch, out, settings);
    arguments[6] = (scratch / "more").string();
    std::erase(arguments, "--quiet");
    const auto run = graft(arguments);
    EXPECT_EQ(run.code, 0) << run.err;
    return run.err.find(
               "note: the new labels contain the source's. EWC, L2-SP and LwF cannot hold old classes when the "
               "class set grows; replay can (retain.replay.fraction with retain.source_data).") != std::string::npos;
  };
  EXPECT_TRUE(told("ewc", {"retain.ewc.strength=10"}));
  EXPECT_TRUE(told("lwf", {"retain.lwf.weight=1"}));
  EXPECT_FALSE(told("free", {})) << "nothing was to be kept";
  EXPECT_FALSE(told("replay", with_source_data(scratch, {"retain.replay.fraction=0.2"})));
}

TEST(Retain, ReplayFromABufferWithLogits) {
  const Scratch scratch;
  write_two_tasks(scratch);
  for (const auto* buffer : {"reservoir", "balanced", "herding"}) {
    auto arguments = second_run(
        scratch, buffer,
        with_source_data(scratch, {"retain.replay.fraction=0.3", "retain.replay.size=10", "retain.replay.logits=0.5",
                                   std::string("retain.replay.buffer=") + buffer}));
    std::erase(arguments, "--quiet");
    const auto run = graft(arguments);
    ASSERT_EQ(run.code, 0) << run.err;
    EXPECT_NE(run.err.find(std::string("10 of the source's 64 examples are kept for replay (") + buffer + ")"),
              std::string::npos)
        << run.err;
    // Drawn more often than there are, their frozen blocks are computed once.
    EXPECT_NE(run.err.find("frozen blocks computed once for 10 replayed examples"), std::string::npos) << run.err;
  }
  const auto refused = [&](const std::vector<std::string>& settings) {
    const auto run = graft(second_run(scratch, "refused", with_source_data(scratch, settings)));
    EXPECT_EQ(run.code, 2);
    return run.err;
  };
  EXPECT_NE(refused({"retain.replay.fraction=0.3", "retain.replay.buffer=herding"})
                .find("retain.replay.size: is missing; herding chooses so many source examples"),
            std::string::npos);
  EXPECT_NE(refused({"retain.replay.size=3", "retain.replay.buffer=all"})
                .find("retain.replay.size: leaves examples out, and retain.replay.buffer = \"all\" keeps them"),
            std::string::npos);
  EXPECT_NE(refused({"retain.replay.buffer=herdin"}).find("did you mean \"herding\"?"), std::string::npos);
  EXPECT_NE(refused({"retain.strengthened=[\"ewk\"]"}).find("did you mean \"ewc\"?"), std::string::npos);
  EXPECT_NE(refused({"retain.ewc.decay=2"}).find("retain.ewc.decay: expected from 0 to 1, found 2"), std::string::npos);
  EXPECT_NE(refused({"retain.strengthen_by=0.5"}).find("retain.strengthen_by: expected at least 1"), std::string::npos);
}

TEST(Retain, TheSourcesAnswersAreTheStoresOfTheHeadPhase) {
  const Scratch scratch;
  write_two_tasks(scratch);
  auto arguments =
      second_run(scratch, "run", {"retain.lwf.weight=1", "features.folder=" + (scratch / "kept").string()});
  std::erase(arguments, "--quiet");
  const auto run = graft(arguments);
  ASSERT_EQ(run.code, 0) << run.err;
  EXPECT_EQ(run.err.find("frozen blocks computed once for 64 training examples"), std::string::npos)
      << "the pass that asked the source has stored them\n"
      << run.err;
  const auto listed = graft({"cache", "list", "--json", (scratch / "kept").string()});
  ASSERT_EQ(listed.code, 0) << listed.err;
  EXPECT_NE(listed.out.find("answers"), std::string::npos) << listed.out;
}

TEST(RetainSlow, ResumedAfterAKillItEndsWithTheSameBytes) {
  const Scratch scratch;
  write_two_tasks(scratch);
  const auto settings =
      with_source_data(scratch, {"retain.ewc.strength=100", "retain.l2sp=0.1", "retain.lwf.weight=1",
                                 "retain.max_forgetting=0", "retain.replay.fraction=0.2", "retain.replay.size=20"});
  ASSERT_EQ(graft(second_run(scratch, "whole", settings)).code, 0);
  const auto arguments = [&](const std::string& name) { return second_run(scratch, name, settings); };
  EXPECT_GE(tests::expect_same_after_kills(scratch / "whole", {5, 20, 41, 75, 110, 160, 210, 260, 330}, arguments), 5);
}

}  // namespace
}  // namespace graft
