// A decoder through the whole schedule, as a user starts it.
#include <gtest/gtest.h>

#include <set>

#include "graft/data/tokenizers/tokenizer.h"
#include "graft/io/safetensors.h"
#include "graft/models/architectures.h"
#include "graft/models/loading.h"
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

TEST(DecoderRun, AnAdapterIsASourceWhoseResultIsMerged) {
  const Scratch scratch;
  const auto adapt = [&](const std::string& source, const std::string& out, const std::vector<std::string>& settings) {
    std::vector<std::string> arguments{"adapt",
                                       "--quiet",
                                       "--json",
                                       "--source",
                                       (scratch / source).string(),
                                       "--corpus",
                                       (scratch / "corpus.txt").string(),
                                       "--out",
                                       (scratch / out).string()};
    for (const auto& setting : settings) arguments.insert(arguments.end(), {"--set", setting});
    return graft(arguments);
  };
  const std::vector<std::string> settings{"adapt.epochs=1", "adapt.max_length=24", "adapt.held_out_fraction=0.2",
                                          "lora.rank=2", "lora.head=freeze"};
  decoder_run(scratch, "none");
  ASSERT_EQ(adapt("source", "first", settings).code, 0);
  const auto saved = tests::read_text(scratch / "first/model/adapter_model.safetensors");
  EXPECT_EQ(saved.find("lm_head"), std::string::npos) << "what rests is not saved";
  const auto refused = adapt("first/model", "second", settings);
  EXPECT_EQ(refused.code, 2);
  EXPECT_NE(refused.err.find("lora.merge: model is an adapter itself, and PEFT opens no adapter upon another. Set "
                             "lora.merge = true"),
            std::string::npos)
      << refused.err;
  EXPECT_FALSE(std::filesystem::exists(scratch / "second/model"));
  std::filesystem::remove_all(scratch / "second");
  auto merging = settings;
  merging.push_back("lora.merge=true");
  const auto merged = adapt("first/model", "second", merging);
  ASSERT_EQ(merged.code, 0) << merged.err;
  EXPECT_TRUE(std::filesystem::exists(scratch / "second/model/model.safetensors"));
  EXPECT_EQ(graft({"predict", "--model", (scratch / "second/model").string(), "--max-new-tokens", "2"}, "good\n").code,
            0);
}

/// The tiny decoder with random weights and as many rows as its tokenizer has words, so that every token has a text.
void write_talking_decoder(const std::filesystem::path& folder) {
  tests::write_tiny_decoder(folder);
  auto config = Json::parse(tests::read_text(folder / "config.json"));
  config["vocab_size"] = data::Tokenizer::load(folder).vocab_size();
  tests::write_text(folder / "config.json", config.dump());
  torch::manual_seed(2);
  const auto model = models::find_architecture(config).create(config, {"causal_lm"});
  const torch::NoGradGuard no_grad;
  std::map<std::string, torch::Tensor> tensors;
  for (const auto& item : model->parameters_by_key()) {
    if (item.value().dim() > 1) item.value().normal_(0, 0.3);
    tensors[item.key()] = item.value();
  }
  io::write_safetensors(folder / "model.safetensors", models::to_views(tensors));
}

TEST(DecoderPredict, EndsAtAStopTextAndDrawsBySeed) {
  const Scratch scratch;
  write_talking_decoder(scratch / "source");
  const auto predict = [&](const std::vector<std::string>& more) {
    std::vector<std::string> arguments{"predict", "--model",          (scratch / "source").string(),
                                       "--json",  "--max-new-tokens", "12"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const auto outcome = graft(arguments, "good film\n");
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    return Json::parse(outcome.out);
  };
  // A seed with which the end token does not come up.
  int seed = 0;
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.end(), {"--temperature", "1.5", "--seed", std::to_string(seed)});
    return predict(more);
  };
  while (seed < 20 && with({})["reason"] != "length") ++seed;
  const auto whole = with({});
  EXPECT_EQ(with({})["generated"], whole["generated"]) << "a seed decides";
  std::set<std::string> others;
  for (const auto* other : {"101", "102", "103"})
    others.insert(predict({"--temperature", "1.5", "--seed", other})["generated"].get<std::string>());
  EXPECT_GE(others.size(), 2u);
  const auto likeliest = predict({});
  EXPECT_EQ(predict({"--temperature", "1.5", "--top-k", "1"})["generated"], likeliest["generated"]);

  // A piece of the text as the stop: nothing from there on is told.
  const auto text = whole["generated"].get<std::string>();
  ASSERT_GE(text.size(), 6u);
  const auto stop = text.substr(text.size() / 2, 3);
  const auto stopped = with({"--stop", stop});
  EXPECT_EQ(stopped["generated"], text.substr(0, text.find(stop)));
  EXPECT_EQ(stopped["reason"], "stop");
  const auto bad = graft({"predict", "--model", (scratch / "source").string(), "--temperature", "-1"}, "good\n");
  EXPECT_EQ(bad.code, 2);
  EXPECT_NE(bad.err.find("temperature: expected at least 0, found -1"), std::string::npos) << bad.err;
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
  failing({{"bos_token_id", 7}}, "the tokenizer's bos_token `<s>` has the id 1, but config.json says bos_token_id 7");
  failing({{"eos_token_id", {5, 6}}}, "eos_token `</s>` has the id 2, but config.json says eos_token_id 5, 6");
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
