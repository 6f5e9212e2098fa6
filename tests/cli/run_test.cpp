// The main job as a user starts it, killed and resumed.
#include <gtest/gtest.h>

#include <chrono>
#include <csignal>
#include <future>
#include <thread>

#include "graft/io/commit.h"
#include "graft/io/safetensors.h"
#include "graft/models/architectures.h"
#include "graft/models/loading.h"
#include "graft/report/journal.h"
#include "tests/cli/program.h"

namespace graft {
namespace {

using tests::graft;
using tests::Scratch;

TEST(Run, GoesThroughAllStagesAndLeavesAModelThatPredicts) {
  const Scratch scratch;
  const auto run = graft(tests::short_run(scratch, "run"));
  ASSERT_EQ(run.code, 0) << run.err;
  const auto result = Json::parse(run.out);
  EXPECT_LT(result["adapt"]["after"]["loss"], result["adapt"]["before"]["loss"]);
  EXPECT_EQ(result["finetune"]["phases"].size(), 4u);  // head, two units, full
  EXPECT_TRUE(result["test"].contains("accuracy"));
  for (const auto* file : {"recipe.toml", "journal.jsonl", "model/model.safetensors", "model/config.json",
                           "model/tokenizer.json", "model/README.md"})
    EXPECT_TRUE(std::filesystem::exists(scratch / "run" / file)) << file;

  const auto model = (scratch / "run" / "model").string();
  const auto config = Json::parse(tests::read_text(std::filesystem::path(model) / "config.json"));
  EXPECT_EQ(config["architectures"][0], "BertForSequenceClassification");
  EXPECT_EQ(config["id2label"]["0"], "negative");
  const auto prediction = graft({"predict", "--model", model, "--json"}, "this was good\n{\"text\": \"a bad plot\"}\n");
  ASSERT_EQ(prediction.code, 0) << prediction.err;
  std::istringstream lines(prediction.out);
  std::string first, second;
  std::getline(lines, first);
  std::getline(lines, second);
  EXPECT_EQ(Json::parse(first)["text"], "this was good");
  EXPECT_NEAR(Json::parse(second)["probabilities"]["positive"].get<double>() +
                  Json::parse(second)["probabilities"]["negative"].get<double>(),
              1, 1e-5);

  // What evaluate measures on the model's folder is what the run measured on its weights.
  const auto evaluation =
      graft({"evaluate", "--model", model, "--data", (scratch / "data" / "test.jsonl").string(), "--json"});
  ASSERT_EQ(evaluation.code, 0) << evaluation.err;
  EXPECT_EQ(Json::parse(evaluation.out)["metrics"]["accuracy"], result["test"]["accuracy"]);
}

TEST(Run, OfADebertaWithASentencePieceModelLeavesAModelThatLoadsAgain) {
  const Scratch scratch;
  tests::write_tiny_deberta(scratch / "source");
  tests::write_tiny_data(scratch / "data");
  const auto run = graft(tests::short_run(scratch, "run"));
  ASSERT_EQ(run.code, 0) << run.err;
  const auto result = Json::parse(run.out);
  EXPECT_LT(result["adapt"]["after"]["loss"], result["adapt"]["before"]["loss"]);
  EXPECT_EQ(result["finetune"]["phases"].size(), 4u);  // head, two units, full
  const auto model = scratch / "run" / "model";
  const auto config = Json::parse(tests::read_text(model / "config.json"));
  EXPECT_EQ(config["architectures"][0], "DebertaV2ForSequenceClassification");
  EXPECT_EQ(config["model_type"], "deberta-v2");
  EXPECT_EQ(tests::read_text(model / "spm.model"), tests::read_text(scratch / "source" / "spm.model"));
  EXPECT_FALSE(std::filesystem::exists(model / "tokenizer.json"));
  const auto prediction = graft({"predict", "--model", model.string(), "--json"}, "this was good\n");
  ASSERT_EQ(prediction.code, 0) << prediction.err;
  const auto evaluation =
      graft({"evaluate", "--model", model.string(), "--data", (scratch / "data" / "test.jsonl").string(), "--json"});
  ASSERT_EQ(evaluation.code, 0) << evaluation.err;
  EXPECT_EQ(Json::parse(evaluation.out)["metrics"]["accuracy"], result["test"]["accuracy"]);
}

TEST(Run, OfCxrBertLeavesABert) {
  const Scratch scratch;
  tests::write_tiny_source(scratch / "source");
  tests::write_tiny_data(scratch / "data");
  auto config = Json::parse(tests::read_text(scratch / "source/config.json"));
  config.update({{"model_type", "cxr-bert"},
                 {"architectures", {"CXRBertModel"}},
                 {"projection_size", 8},
                 {"auto_map", {{"AutoModel", "modeling_cxrbert.CXRBertModel"}}}});
  tests::write_text(scratch / "source/config.json", config.dump());
  const auto model = models::find_architecture(config).create(config, {"features"});
  std::map<std::string, torch::Tensor> tensors;
  for (const auto& item : model->parameters_by_key()) tensors[item.key()] = item.value();
  ASSERT_TRUE(tensors.contains("cls_projection_head.dense_to_output.weight"));
  io::write_safetensors(scratch / "source/model.safetensors", models::to_views(tensors));
  const auto run = graft(tests::short_run(scratch, "run"));
  ASSERT_EQ(run.code, 0) << run.err;
  for (const auto& [folder, name] :
       {std::pair{"run/adapted", "BertForMaskedLM"}, {"run/model", "BertForSequenceClassification"}}) {
    const auto saved = Json::parse(tests::read_text(scratch / folder / "config.json"));
    EXPECT_EQ(saved["model_type"], "bert");
    EXPECT_EQ(saved["architectures"][0], name);
    EXPECT_FALSE(saved.contains("auto_map"));
    const auto file = io::read_safetensors(scratch / folder / "model.safetensors");
    for (const auto& [key, view] : file.tensors) EXPECT_FALSE(key.starts_with("cls_projection_head")) << key;
  }
  EXPECT_EQ(graft({"predict", "--model", (scratch / "run/model").string(), "--json"}, "this was good\n").code, 0);
}

TEST(Run, JournalSaysThatFrozenTensorsAreUnchanged) {
  const Scratch scratch;
  ASSERT_EQ(graft(tests::short_run(scratch, "run")).code, 0);
  std::istringstream journal(tests::read_text(scratch / "run" / "journal.jsonl"));
  std::vector<std::string> phases;
  for (std::string line; std::getline(journal, line);)
    if (const auto entry = Json::parse(line); entry["event"] == "frozen") {
      EXPECT_TRUE(entry["unchanged"]);
      phases.push_back(entry["phase"]);
    }
  EXPECT_EQ(phases, (std::vector<std::string>{"head", "unfreeze 1", "unfreeze 2"}));
}

/// Killed inside the n-th write: checkpoints, stores, journal, adapted model and result are all written through the seam.
TEST(RunSlow, ResumedAfterAKillItEndsWithTheSameBytes) {
  const Scratch scratch;
  ASSERT_EQ(graft(tests::short_run(scratch, "whole")).code, 0);
  const auto arguments = [&](const std::string& name) { return tests::short_run(scratch, name); };
  EXPECT_GE(tests::expect_same_after_kills(scratch / "whole", {3, 30, 61, 95, 140, 190, 240, 300, 370, 450, 530, 610},
                                           arguments),
            8);
}

TEST(Run, AFullDiskDuringTheRunStopsWithASentenceAndTheRunGoesOnLater) {
  const Scratch scratch;
  ASSERT_EQ(graft(tests::short_run(scratch, "whole")).code, 0);
  const auto stopped = graft(tests::short_run(scratch, "run"), "", {"GRAFT_TEST_FAULT=enospc:200"});
  EXPECT_EQ(stopped.code, 5);
  EXPECT_NE(stopped.err.find("--resume"), std::string::npos) << stopped.err;
  const auto resumed = graft({"run", "--quiet", "--resume", (scratch / "run").string()});
  ASSERT_EQ(resumed.code, 0) << resumed.err;
  EXPECT_EQ(tests::run_fingerprint(scratch / "run"), tests::run_fingerprint(scratch / "whole"));
}

TEST(Run, AnExistingRunIsNotOverwritten) {
  const Scratch scratch;
  ASSERT_EQ(graft(tests::short_run(scratch, "run")).code, 0);
  const auto before = tests::run_fingerprint(scratch / "run");
  const auto again = graft(tests::short_run(scratch, "run"));
  EXPECT_EQ(again.code, 2);
  EXPECT_NE(again.err.find("holds a run already"), std::string::npos) << again.err;
  EXPECT_EQ(tests::run_fingerprint(scratch / "run"), before);
}

TEST(Run, ChangedDataCannotBeResumed) {
  const Scratch scratch;
  graft(tests::short_run(scratch, "run"), "", {"GRAFT_TEST_FAULT=kill:1:run/.model."});
  tests::write_text(scratch / "data/train.jsonl", tests::read_text(scratch / "data/train.jsonl") +
                                                      "{\"text\": \"the plot was good\", \"label\": \"positive\"}\n");
  const auto resumed = graft({"run", "--quiet", "--resume", (scratch / "run").string()});
  EXPECT_EQ(resumed.code, 2);
  EXPECT_NE(resumed.err.find("the data has changed"), std::string::npos) << resumed.err;
}

std::vector<double> validations(const Json& result) {
  std::vector<double> values;
  for (const auto& phase : result["finetune"]["phases"]) values.push_back(phase["validation"]);
  return values;
}

std::vector<std::string> with(std::vector<std::string> arguments, const std::string& setting) {
  arguments.insert(arguments.end(), {"--set", setting});
  return arguments;
}

TEST(Run, WithoutTheStoreItEndsWithTheSameMetrics) {
  const Scratch scratch;
  // Batches are made of examples that cost alike, and behind a store they cost otherwise: the courses differ. What is
  // learned does not, once it is learned.
  const auto learning = [&](const std::string& out) {
    auto arguments = tests::short_run(scratch, out);
    for (const auto* setting :
         {"finetune.head.epochs=10", "finetune.unfreeze.epochs=20", "finetune.unfreeze.learning_rate=3e-3",
          "finetune.unfreeze.head_learning_rate=3e-3", "finetune.full.learning_rate=1e-3"})
      arguments = with(arguments, setting);
    return arguments;
  };
  const auto stored = graft(learning("stored")), computed = graft(with(learning("computed"), "features.enabled=false"));
  ASSERT_EQ(computed.code, 0) << computed.err;
  const auto a = validations(Json::parse(stored.out)), b = validations(Json::parse(computed.out));
  ASSERT_EQ(a.size(), b.size());
  EXPECT_GE(a.back(), 0.9);
  EXPECT_NEAR(a.back(), b.back(), 1.0 / 32) << "one of 32 validation examples";
}

TEST(Run, RunsThatShareAFolderComputeFrozenBlocksOnce) {
  const Scratch scratch;
  const auto shared = "features.folder=\"" + (scratch / "shared").string() + "\"";
  ASSERT_EQ(graft(with(tests::short_run(scratch, "first"), shared)).code, 0);
  std::map<std::filesystem::path, std::filesystem::file_time_type> stores;
  for (const auto& file : std::filesystem::directory_iterator(scratch / "shared"))
    stores[file.path()] = file.last_write_time();
  EXPECT_GE(stores.size(), 4u);
  ASSERT_EQ(graft(with(tests::short_run(scratch, "second"), shared)).code, 0);
  size_t found = 0;
  for (const auto& file : std::filesystem::directory_iterator(scratch / "shared")) {
    ++found;
    ASSERT_TRUE(stores.contains(file.path())) << file.path();
    EXPECT_EQ(file.last_write_time(), stores[file.path()]) << file.path() << " was written again";
  }
  EXPECT_EQ(found, stores.size());
}

TEST(Run, TwoAtOnceIntoOneFolderBothEndWithTheSameBytes) {
  const Scratch scratch;
  const auto shared = "features.folder=\"" + (scratch / "shared").string() + "\"";
  const auto first = with(tests::short_run(scratch, "first"), shared),
             second = with(tests::short_run(scratch, "second"), shared);
  auto beside = std::async(std::launch::async, [&] { return graft(first); });
  const auto ours = graft(second);
  ASSERT_EQ(ours.code, 0) << ours.err;
  ASSERT_EQ(beside.get().code, 0);
  EXPECT_EQ(tests::run_fingerprint(scratch / "first"), tests::run_fingerprint(scratch / "second"));
  EXPECT_EQ(graft({"cache", "verify", (scratch / "shared").string()}).code, 0);
}

TEST(Run, WithWeightsInBfloat16ItLeavesABfloat16ModelAndIsResumedToTheByte) {
  for (const std::string weights : {"bfloat16", "bfloat16_stochastic"}) {
    const Scratch scratch;
    const auto run = graft(with(tests::short_run(scratch, "run"), "train.weights=" + weights));
    ASSERT_EQ(run.code, 0) << run.err;
    const auto model = scratch / "run" / "model";
    EXPECT_EQ(Json::parse(tests::read_text(model / "config.json"))["torch_dtype"], "bfloat16");
    for (const auto& [name, view] : io::read_safetensors(model / "model.safetensors").tensors)
      EXPECT_EQ(view.dtype, io::DType::bf16) << name;
    const auto evaluation =
        graft({"evaluate", "--model", model.string(), "--data", (scratch / "data" / "test.jsonl").string(), "--json"});
    ASSERT_EQ(evaluation.code, 0) << evaluation.err;
    EXPECT_NEAR(Json::parse(evaluation.out)["metrics"]["accuracy"].get<double>(),
                Json::parse(run.out)["test"]["accuracy"].get<double>(), 0.05);
    ASSERT_NE(
        graft(with(tests::short_run(scratch, "killed"), "train.weights=" + weights), "", {"GRAFT_TEST_FAULT=kill:190"})
            .code,
        0);
    ASSERT_EQ(graft({"run", "--quiet", "--resume", (scratch / "killed").string()}).code, 0);
    EXPECT_EQ(tests::run_fingerprint(scratch / "killed"), tests::run_fingerprint(scratch / "run")) << weights;
  }
}

TEST(Run, UnderAutocastFrozenBlocksAreComputedUnderItTooAndItIsResumedToTheByte) {
  const Scratch scratch;
  const auto in_half = [&](const std::string& name) {
    return with(with(tests::short_run(scratch, name), "train.precision=bfloat16"),
                "features.folder=" + (scratch / "stores").string());
  };
  const auto run = graft(in_half("run"));
  ASSERT_EQ(run.code, 0) << run.err;
  const auto listed = graft({"cache", "list", "--json", (scratch / "stores").string()});
  ASSERT_EQ(listed.code, 0) << listed.err;
  const auto stores = Json::parse(listed.out)["stores"];
  ASSERT_FALSE(stores.empty());
  for (const auto& store : stores) EXPECT_EQ(store["made_of"]["precision"], "float32, under autocast") << store;
  ASSERT_NE(graft(in_half("killed"), "", {"GRAFT_TEST_FAULT=kill:190"}).code, 0);
  ASSERT_EQ(graft({"run", "--quiet", "--resume", (scratch / "killed").string()}).code, 0);
  EXPECT_EQ(tests::run_fingerprint(scratch / "killed"), tests::run_fingerprint(scratch / "run"));
}

TEST(Run, PullsTowardsTheSourceAreRefusedWithWeightsInBfloat16) {
  const Scratch scratch;
  const auto refused = graft(with(with(tests::short_run(scratch, "run"), "train.weights=bfloat16"), "retain.l2sp=1"));
  EXPECT_EQ(refused.code, 2);
  EXPECT_NE(refused.err.find("pull by less than bfloat16 can hold"), std::string::npos) << refused.err;
}

/// A run with a phase of some length in each stage, and no checkpoint of its own within a phase.
std::vector<std::string> long_phases(const Scratch& scratch, const std::string& out) {
  auto arguments = tests::short_run(scratch, out);
  for (const auto* setting : {"adapt.epochs=25", "finetune.unfreeze.max_units=1", "finetune.unfreeze.epochs=25",
                              "finetune.full.when=never", "train.checkpoint_seconds=1000"})
    arguments = with(arguments, setting);
  return arguments;
}

/// Waits until the journal has an epoch of this phase.
void wait_for_epoch(tests::Started& run, const std::filesystem::path& folder, const std::string& phase) {
  for (int i = 0; i < 60'000 && !run.ended(); ++i) {
    for (const auto& entry : report::Journal(folder / "journal.jsonl").entries())
      if (entry["event"] == "epoch" && entry["phase"] == phase) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  FAIL() << "no epoch of " << phase << ": " << run.err();
}

TEST(Run, ASignalFinishesTheStepAndWhatWasSavedEndsWithTheSameBytes) {
  const Scratch scratch;
  ASSERT_EQ(graft(long_phases(scratch, "whole")).code, 0);
  const auto expected = tests::run_fingerprint(scratch / "whole");
  struct Row {
    int signal, code;
    std::string phase, stage;
  };
  for (const auto& row : {Row{SIGTERM, 143, "unfreeze 1", "finetune"}, {SIGINT, 130, "adapt", "adapt"}}) {
    const auto folder = scratch / row.stage;
    tests::Started run(long_phases(scratch, row.stage));
    wait_for_epoch(run, folder, row.phase);
    run.send(row.signal);
    const auto outcome = run.finish();
    EXPECT_EQ(outcome.code, row.code) << outcome.err;
    EXPECT_NE(outcome.err.find("finishing this step, then saving"), std::string::npos) << outcome.err;
    EXPECT_NE(outcome.err.find("interrupted; everything is saved. Go on with --resume."), std::string::npos);
    const auto sessions = report::Journal(folder / "sessions.jsonl").entries();
    EXPECT_EQ(sessions.back()["event"], "interrupted");
    EXPECT_EQ(sessions.back()["signal"], row.signal);
    const auto saved = io::CommittedFolders(folder / "checkpoints").latest();
    ASSERT_TRUE(saved.found);
    EXPECT_EQ(saved.found->state["stage"], row.stage);
    const int64_t epoch = saved.found->state["state"]["phase"]["epoch"];
    EXPECT_GE(epoch, 1);
    EXPECT_LT(epoch, 25) << "in mid-phase";
    const auto resumed = graft({"run", "--quiet", "--resume", folder.string()});
    ASSERT_EQ(resumed.code, 0) << resumed.err;
    EXPECT_EQ(tests::run_fingerprint(folder), expected) << row.phase;
  }
}

TEST(Run, ASecondSignalLeavesAtOnce) {
  const Scratch scratch;
  ASSERT_EQ(graft(tests::short_run(scratch, "whole")).code, 0);
  // It stops itself at each write of its first checkpoint, and gets a signal at two of them.
  tests::Started run(tests::short_run(scratch, "run"), "", {"GRAFT_TEST_FAULT=stop:1:run/checkpoints"});
  ASSERT_TRUE(run.stopped()) << run.err();
  run.send(SIGINT);
  run.send(SIGCONT);
  ASSERT_TRUE(run.stopped()) << run.err();
  EXPECT_NE(run.err().find("once more to leave at once"), std::string::npos) << run.err();
  run.send(SIGINT);
  run.send(SIGCONT);
  const auto outcome = run.finish();
  EXPECT_EQ(outcome.code, 130);
  EXPECT_EQ(outcome.err.find("everything is saved"), std::string::npos) << outcome.err;
  const auto resumed = graft({"run", "--quiet", "--resume", (scratch / "run").string()});
  ASSERT_EQ(resumed.code, 0) << resumed.err;
  EXPECT_EQ(tests::run_fingerprint(scratch / "run"), tests::run_fingerprint(scratch / "whole"));
}

TEST(Run, DryRunTrainsNothingAndSaysWhatItWouldDo) {
  const Scratch scratch;
  auto arguments = tests::short_run(scratch, "run");
  arguments.push_back("--dry-run");
  const auto plan = graft(arguments);
  ASSERT_EQ(plan.code, 0) << plan.err;
  const auto json = Json::parse(plan.out);
  std::vector<std::string> names;
  for (const auto& phase : json["phases"]) names.push_back(phase["phase"]);
  EXPECT_EQ(names, (std::vector<std::string>{"adapt", "head", "unfreeze 1", "unfreeze 2", "full"}));
  EXPECT_EQ(json["phases"][1]["trainable_parameters"], 32 * 32 + 32 + 2 * 32 + 2);  // pooler and classifier
  EXPECT_GT(json["seconds"]["at_most"].get<double>(), json["seconds"]["at_least"].get<double>());
  EXPECT_GT(json["seconds"]["at_least"].get<double>(), 0);
  for (const auto* what : {"verdict", "test", "what is kept of the source"})
    EXPECT_GT(json["seconds_beside_phases"][what].get<double>(), 0) << what;
  EXPECT_TRUE(json["memory"]["fits"]);
  EXPECT_TRUE(json["memory"]["sentence"].get<std::string>().starts_with("It fits: ")) << json["memory"];
  EXPECT_GT(json["disk_bytes"].get<int64_t>(), 0);
  EXPECT_FALSE(std::filesystem::exists(scratch / "run"));

  arguments.erase(std::find(arguments.begin(), arguments.end(), "--json"));
  const auto told = graft(arguments);
  ASSERT_EQ(told.code, 0) << told.err;
  for (const auto* words : {"adapt", "unfreeze 2", "It fits: ", "disk: ", "time from "})
    EXPECT_NE(told.out.find(words), std::string::npos) << words << "\n" << told.out;
}

TEST(Run, DryRunOfAnAdaptationTellsItsPhases) {
  const Scratch scratch;
  tests::short_run(scratch, "run");
  const std::vector<std::string> arguments{"adapt",    "--dry-run",
                                           "--source", (scratch / "source").string(),
                                           "--corpus", (scratch / "corpus.txt").string(),
                                           "--out",    (scratch / "run").string(),
                                           "--set",    "adapt.max_length=24",
                                           "--set",    "adapt.held_out_fraction=0.2"};
  const auto told = graft(arguments);
  ASSERT_EQ(told.code, 0) << told.err;
  for (const auto* words : {"adapt", "s per epoch", "It fits: ", "time from "})
    EXPECT_NE(told.out.find(words), std::string::npos) << words << "\n" << told.out;
  auto json = arguments;
  json.push_back("--json");
  const auto plan = Json::parse(graft(json).out);
  EXPECT_EQ(plan["phases"].size(), 1u);
  EXPECT_GT(plan["phases"][0]["seconds_per_epoch"].get<double>(), 0);
  EXPECT_FALSE(std::filesystem::exists(scratch / "run"));
}

TEST(Run, DryRunOfWhatDoesNotFitSaysSoAndTrainsNothing) {
  const Scratch scratch;
  auto arguments = tests::short_run(scratch, "run");
  arguments.push_back("--dry-run");
  const auto plan = graft(arguments, "", {"GRAFT_TEST_MEMORY=1000"});
  ASSERT_EQ(plan.code, 0) << plan.err;
  const auto json = Json::parse(plan.out);
  EXPECT_FALSE(json["memory"]["fits"]);
  EXPECT_FALSE(json.contains("seconds"));
  EXPECT_FALSE(json["phases"][0].contains("seconds_per_epoch"));
  EXPECT_TRUE(json["memory"]["sentence"].get<std::string>().starts_with("It does not fit: ")) << json["memory"];
}

TEST(Run, DryRunWithAdaptersPlansAdapters) {
  const Scratch scratch;
  auto arguments = with(with(tests::short_run(scratch, "run"), "lora.rank=2"), "lora.targets=[\"query\"]");
  arguments.push_back("--dry-run");
  const auto plan = graft(arguments);
  ASSERT_EQ(plan.code, 0) << plan.err;
  const auto json = Json::parse(plan.out);
  const auto head = json["phases"][1]["trainable_parameters"].get<int64_t>();
  EXPECT_EQ(json["phases"][2]["trainable_parameters"].get<int64_t>() - head, 2 * (32 + 32)) << "A and B of one layer";
}

}  // namespace
}  // namespace graft
