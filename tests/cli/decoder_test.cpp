// A decoder through the whole schedule, as a user starts it.
#include <gtest/gtest.h>

#include "tests/cli/program.h"

namespace graft {
namespace {

using tests::graft;
using tests::Scratch;

std::vector<std::string> decoder_run(const Scratch& scratch, const std::string& out) {
  if (!std::filesystem::exists(scratch / "source")) {
    tests::write_tiny_decoder(scratch / "source");
    tests::write_tiny_data(scratch / "data");
  }
  return tests::short_run(scratch, out);
}

TEST(DecoderRun, GoesThroughAllStagesAndLeavesAModelThatPredicts) {
  const Scratch scratch;
  const auto run = graft(decoder_run(scratch, "run"));
  ASSERT_EQ(run.code, 0) << run.err;
  const auto result = Json::parse(run.out);
  EXPECT_LT(result["adapt"]["after"]["perplexity"], result["adapt"]["before"]["perplexity"]);
  EXPECT_EQ(result["finetune"]["phases"].size(), 4u);  // head, two units, full
  EXPECT_TRUE(result["test"].contains("accuracy"));

  const auto adapted = Json::parse(tests::read_text(scratch / "run/adapted/config.json"));
  EXPECT_EQ(adapted["architectures"][0], "LlamaForCausalLM");
  const auto config = Json::parse(tests::read_text(scratch / "run/model/config.json"));
  EXPECT_EQ(config["architectures"][0], "LlamaForSequenceClassification");
  EXPECT_EQ(config["pad_token_id"], 2) << "the end token stands in, for transformers scores no batch without padding";

  const auto model = (scratch / "run/model").string();
  const auto prediction = graft({"predict", "--model", model, "--json"}, "this was good\n");
  ASSERT_EQ(prediction.code, 0) << prediction.err;
  EXPECT_TRUE(Json::parse(prediction.out).contains("label"));
  const auto evaluation =
      graft({"evaluate", "--model", model, "--data", (scratch / "data" / "test.jsonl").string(), "--json"});
  ASSERT_EQ(evaluation.code, 0) << evaluation.err;
  EXPECT_EQ(Json::parse(evaluation.out)["metrics"]["accuracy"], result["test"]["accuracy"]);
}

TEST(DecoderRunSlow, ResumedAfterAKillItEndsWithTheSameBytes) {
  const Scratch scratch;
  ASSERT_EQ(graft(decoder_run(scratch, "whole")).code, 0);
  for (const int operation : {45, 160, 320}) {
    const auto name = "run" + std::to_string(operation);
    const auto first = graft(decoder_run(scratch, name), "", {"GRAFT_TEST_FAULT=kill:" + std::to_string(operation)});
    ASSERT_EQ(first.code, 128 + SIGKILL) << first.err;
    const auto resumed = graft({"run", "--quiet", "--resume", (scratch / name).string()});
    ASSERT_EQ(resumed.code, 0) << resumed.err;
    EXPECT_EQ(tests::run_fingerprint(scratch / name), tests::run_fingerprint(scratch / "whole")) << operation;
  }
}

TEST(DecoderRun, WithAdaptersTheResultIsWhatPeftSavesAndMergedAWholeModel) {
  const Scratch scratch;
  const auto with = [&](const std::string& out, const std::string& merge) {
    auto arguments = decoder_run(scratch, out);
    for (const auto& setting : {"lora.rank=4", "finetune.unfreeze.learning_rate=1e-2", merge.c_str()}) {
      arguments.push_back("--set");
      arguments.push_back(setting);
    }
    const auto run = graft(arguments);
    EXPECT_EQ(run.code, 0) << run.err;
    return Json::parse(run.out);
  };
  const auto beside = with("beside", "lora.merge=false"), merged = with("merged", "lora.merge=true");
  EXPECT_EQ(beside["test"], merged["test"]);
  EXPECT_FALSE(std::filesystem::exists(scratch / "beside/model/model.safetensors"));
  const auto config = Json::parse(tests::read_text(scratch / "beside/model/adapter_config.json"));
  EXPECT_EQ(config["peft_type"], "LORA");
  EXPECT_EQ(config["r"], 4);
  EXPECT_EQ(config["modules_to_save"], (std::vector<std::string>{"model.norm", "score"}));

  const auto test = (scratch / "data/test.jsonl").string();
  const auto predict = [&](const std::string& run) {
    const auto outcome = graft({"predict", "--model", (scratch / run / "model").string(), "--json", test});
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    std::vector<double> p;
    std::istringstream lines(outcome.out);
    for (std::string line; std::getline(lines, line);) p.push_back(Json::parse(line)["probabilities"]["positive"]);
    return p;
  };
  const auto a = predict("beside"), b = predict("merged");
  ASSERT_EQ(a.size(), 16u);
  for (size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], b[i], 1e-5);

  auto arguments = decoder_run(scratch, "none");
  arguments.insert(arguments.end(), {"--set", "lora.rank=4", "--set", "lora.targets=[\"query\"]"});
  const auto outcome = graft(arguments);
  EXPECT_EQ(outcome.code, 2);
  EXPECT_NE(outcome.err.find("no linear layer is named `query`; there are down_proj"), std::string::npos)
      << outcome.err;
}

/// config.json with some keys replaced.
void change_config(const std::filesystem::path& file, const Json& change) {
  auto config = Json::parse(tests::read_text(file));
  config.update(change);
  tests::write_text(file, config.dump());
}

TEST(DecoderBadInput, IsASentence) {
  const Scratch scratch;
  const auto arguments = decoder_run(scratch, "run");
  const auto config = scratch / "source/config.json";
  const auto original = tests::read_text(config);
  const auto failing = [&](const Json& change, const std::string& sentence) {
    change_config(config, change);
    const auto outcome = graft(arguments);
    EXPECT_EQ(outcome.code, 4) << change.dump();
    EXPECT_NE(outcome.err.find(sentence), std::string::npos) << outcome.err;
    tests::write_text(config, original);
    std::filesystem::remove_all(scratch / "run");
  };
  failing({{"rope_parameters", {{"rope_type", "spiral"}, {"rope_theta", 10000.0}}}}, "the rope type `spiral` is not");
  failing({{"rope_scaling", {{"type", "linear"}}}, {"rope_parameters", nullptr}}, "rope type linear wants a factor");
  failing({{"num_key_value_heads", 3}}, "num_attention_heads 4 is not a multiple of num_key_value_heads 3");

  for (const auto& name : {"config.json", "model.safetensors"}) std::filesystem::remove(scratch / "source" / name);
  const auto shards = tests::fixture("parity/llama-bf16-shards/model");
  for (const auto& file : std::filesystem::directory_iterator(shards))
    if (file.path().filename() != "model-00003-of-00004.safetensors")
      std::filesystem::copy_file(file, scratch / "source" / file.path().filename());
  const auto outcome = graft(arguments);
  EXPECT_EQ(outcome.code, 4);
  EXPECT_NE(outcome.err.find("model-00003-of-00004.safetensors"), std::string::npos) << outcome.err;
}

}  // namespace
}  // namespace graft
