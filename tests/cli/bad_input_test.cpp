// Bad input as a user meets it: each is a sentence that names the thing, an exit code of its kind, and no earlier result harmed.
#include <gtest/gtest.h>

#include "graft/io/safetensors.h"
#include "tests/cli/program.h"

namespace graft {
namespace {

using tests::graft;
using tests::Scratch;

void expect(const tests::Outcome& outcome, int code, const std::vector<std::string>& parts) {
  EXPECT_EQ(outcome.code, code) << outcome.err;
  for (const auto& part : parts)
    EXPECT_NE(outcome.err.find(part), std::string::npos) << "wanted: " << part << "\nfound: " << outcome.err;
}

tests::Outcome finetune(const Scratch& scratch, const std::vector<std::string>& more = {},
                        const std::vector<std::string>& environment = {}) {
  std::vector<std::string> arguments{"finetune", "--quiet",
                                     "--source", (scratch / "source").string(),
                                     "--data",   (scratch / "data").string(),
                                     "--out",    (scratch / "run").string(),
                                     "--set",    "finetune.head.epochs=2",
                                     "--set",    "finetune.unfreeze.max_units=0"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return graft(arguments, "", environment);
}

struct BadInput : testing::Test {
  BadInput() {
    tests::write_tiny_source(scratch / "source");
    tests::write_tiny_data(scratch / "data");
  }
  void change_config(const std::string& key, const Json& value) {
    auto config = Json::parse(tests::read_text(scratch / "source/config.json"));
    config[key] = value;
    tests::write_text(scratch / "source/config.json", config.dump());
  }
  Scratch scratch;
};

TEST_F(BadInput, ARecipeWithFiveMistakesReportsAllFive) {
  tests::write_text(scratch / "recipe.toml",
                    "sorce = 'x'\noutput = 'run'\n[data]\npath = 'd'\ntask = 'clasification'\n[train]\nbatch_size = "
                    "0\n[finetune.head]\nepohcs = 3\n");
  expect(graft({"run", (scratch / "recipe.toml").string()}), 2,
         {"5 mistakes", "did you mean `source`", "source: is missing", "data.task",
          "train.batch_size: expected at least 1", "did you mean `epochs`"});
}

TEST_F(BadInput, ATokenizerLargerThanTheEmbedding) {
  auto vocabulary = tests::read_text(scratch / "source/vocab.txt");
  for (int i = 0; i < 100; ++i) vocabulary += "word" + std::to_string(i) + "\n";
  tests::write_text(scratch / "source/vocab.txt", vocabulary);
  expect(finetune(scratch), 4, {"the tokenizer has", "the embedding 97 rows"});
}

TEST_F(BadInput, ATokenizerOfAnotherFamily) {
  for (const auto* name : {"vocab.txt", "tokenizer_config.json"}) std::filesystem::remove(scratch / "source" / name);
  const auto model = tests::fixture("parity/tokenizers/spm-unigram/spm.model");
  std::filesystem::copy(model, scratch / "source/spm.model");
  expect(finetune(scratch), 4, {"spm.model", "model_type `bert`", "may not belong to this model"});
  tests::write_text(scratch / "source/tokenizer_config.json", R"({"tokenizer_class": "DebertaV2Tokenizer"})");
  std::filesystem::remove_all(scratch / "run");
  expect(finetune(scratch), 4, {"the tokenizer has 2001 ids", "the embedding 97 rows"});
}

TEST_F(BadInput, ATokenizerWhosePaddingIsAnother) {
  change_config("pad_token_id", 1);
  expect(finetune(scratch), 4, {"padding token `[PAD]` has the id 0", "pad_token_id 1", "does not belong"});
}

TEST_F(BadInput, ADebertaWithTermsOfAttentionThatAreUnknown) {
  change_config("model_type", "deberta");
  change_config("relative_attention", true);
  change_config("pos_att_type", "c2p|c2c");
  expect(finetune(scratch), 4, {"pos_att_type `c2c`", "c2p and p2c"});
}

TEST_F(BadInput, AnUnknownActivation) {
  change_config("hidden_act", "gleu");
  expect(finetune(scratch), 4, {"activation function `gleu` is unknown", "gelu"});
}

TEST_F(BadInput, AnUnknownModelType) {
  change_config("model_type", "mystery");
  expect(finetune(scratch), 4, {"model type `mystery`", "bert", "roberta"});
}

TEST_F(BadInput, WeightsOfAnotherShapeAndNumber) {
  change_config("num_hidden_layers", 3);
  expect(finetune(scratch), 4, {"missing", "bert.encoder.layer.2.attention.self.query.weight [32, 32]", "config.json"});
}

TEST_F(BadInput, WeightsThatHoldNaN) {
  auto bytes = tests::read_text(scratch / "source/model.safetensors");
  const float nan = std::nanf("");
  uint64_t header = 0;
  std::memcpy(&header, bytes.data(), 8);
  std::memcpy(bytes.data() + 8 + header, &nan, 4);  // in the first tensor, a norm of the embeddings
  tests::write_text(scratch / "source/model.safetensors", bytes);
  expect(finetune(scratch), 4, {"NaN or infinite"});
}

TEST_F(BadInput, ATruncatedFile) {
  auto bytes = tests::read_text(scratch / "source/model.safetensors");
  tests::write_text(scratch / "source/model.safetensors", bytes.substr(0, bytes.size() / 2));
  expect(finetune(scratch), 4, {"model.safetensors"});
}

TEST_F(BadInput, AFolderWithoutAModel) {
  std::filesystem::remove(scratch / "source/config.json");
  expect(finetune(scratch), 4, {"has no config.json"});
}

TEST_F(BadInput, ALabelUnseenInTraining) {
  tests::write_text(scratch / "data/test.jsonl", "{\"text\": \"a film\", \"label\": \"positiv\"}\n");
  expect(finetune(scratch), 3, {"test.jsonl", "row 1", "positiv", "positive"});
}

TEST_F(BadInput, OneClassOnly) {
  tests::write_text(
      scratch / "data/train.jsonl",
      "{\"text\": \"a film\", \"label\": \"positive\"}\n{\"text\": \"a plot\", \"label\": \"positive\"}\n");
  expect(finetune(scratch), 3, {"positive"});
}

TEST_F(BadInput, AnEmptySplit) {
  tests::write_text(scratch / "data/validation.jsonl", "");
  expect(finetune(scratch), 3, {"validation"});
}

TEST_F(BadInput, InvalidUtf8) {
  tests::write_text(scratch / "data/train.jsonl", "{\"text\": \"a \xff film\", \"label\": \"positive\"}\n");
  expect(finetune(scratch), 3, {"train.jsonl", "row 1", "UTF-8"});
}

TEST_F(BadInput, AnOutputThatCannotBeWritten) {
  tests::write_text(scratch / "file", "");
  expect(graft({"finetune", "--quiet", "--source", (scratch / "source").string(), "--data", (scratch / "data").string(),
                "--out", (scratch / "file" / "run").string()}),
         5, {"file"});
}

/// The tiny source has 26,000 parameters: 1.2 MiB for three checkpoints of everything, a few KiB for those of the head.
TEST_F(BadInput, ADiskTooSmallForTheCheckpointsIsKnownBeforeTraining) {
  const std::vector<std::string> full{"--set", "finetune.full.when=always"}, never{"--set", "finetune.full.when=never"};
  const auto refused = finetune(scratch, full, {"GRAFT_TEST_FAULT=free:500000"});
  expect(refused, 5,
         {(scratch / "run").string() + ": a run that trains 0.0 of 0.0 million parameters, for its checkpoints and its "
                                       "result, needs 1.",
          "MiB, 0.5 MiB are free; free space there or choose another folder"});
  EXPECT_FALSE(std::filesystem::exists(scratch / "run/journal.jsonl")) << "nothing was computed";
  std::filesystem::remove_all(scratch / "run");
  expect(finetune(scratch, never, {"GRAFT_TEST_FAULT=free:500000"}), 0, {});
}

TEST_F(BadInput, ALossThatBecomesNaNStopsAtOnceAndNamesTheBlock) {
  const auto outcome =
      finetune(scratch, {"--set", "finetune.head.learning_rates=[1e38]", "--set", "train.checkpoint_seconds=0"});
  expect(outcome, 6, {"head 1, epoch 1", "head", "lower the learning rate"});
}

TEST_F(BadInput, ResumeWithoutARun) {
  expect(graft({"run", "--resume", (scratch / "nothing").string()}), 2, {"there is no run in this folder"});
}

TEST_F(BadInput, AnUnknownMetric) {
  expect(finetune(scratch, {"--set", "finetune.metric=accurracy"}), 2, {"accurracy", "macro_f1"});
}

TEST_F(BadInput, TheLossDecidesNothing) {
  expect(finetune(scratch, {"--set", "finetune.metric=loss"}), 2, {"`loss` is not a metric", "accuracy"});
}

TEST_F(BadInput, PredictingWithoutATaskHead) {
  expect(graft({"predict", "--model", (scratch / "source").string()}, "a film\n"), 4, {"has no task head"});
}

TEST_F(BadInput, ForwardWithIdsOutsideTheVocabulary) {
  const std::vector<int64_t> ids{1, 2, 5000};
  io::TensorView view;
  view.dtype = io::DType::i64;
  view.shape = {1, 3};
  view.strides = {3, 1};
  view.data = reinterpret_cast<const char*>(ids.data());
  io::write_safetensors(scratch / "in.safetensors", {{"input_ids", view}});
  expect(graft({"forward", "--model", (scratch / "source").string(), "--inputs", (scratch / "in.safetensors").string(),
                "--outputs", (scratch / "out.safetensors").string()}),
         3, {"input_ids: holds 5000", "97 rows"});
}

}  // namespace
}  // namespace graft
