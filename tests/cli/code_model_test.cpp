// A code model from nothing: a tokenizer of one's own, fill-in-the-middle in adapt and finetune, gaps filled by predict.
#include <gtest/gtest.h>

#include "graft/io/safetensors.h"
#include "graft/models/architectures.h"
#include "graft/models/loading.h"
#include "tests/cli/program.h"

namespace graft {
namespace {

using tests::graft;
using tests::Scratch;

constexpr int kDocuments = 160;

std::string document(int number) { return "let n" + std::to_string(number) + " be red green blue end"; }

struct CodeModel : testing::Test {
  CodeModel() {
    std::string corpus, rows;
    for (int i = 0; i < kDocuments; ++i) {
      corpus += document(i) + "\n";
      rows += Json{{"text", document(i)}}.dump() + "\n";
    }
    tests::write_text(scratch / "corpus.txt", corpus);
    tests::write_text(scratch / "rows.jsonl", rows);
  }

  tests::Outcome learn_tokenizer() {
    return graft({"tokenize", "--train", (scratch / "corpus.txt").string(), "--vocab-size", "280", "--special",
                  "<fim_prefix>", "--special", "<fim_suffix>", "--special", "<fim_middle>", "--out", source(),
                  "--json"});
  }
  void write_source() {
    const auto learned = learn_tokenizer();
    ASSERT_EQ(learned.code, 0) << learned.err;
    const Json config{{"model_type", "gpt_bigcode"},
                      {"architectures", {"GPTBigCodeForCausalLM"}},
                      {"vocab_size", 280},
                      {"n_positions", 64},
                      {"n_embd", 48},
                      {"n_layer", 2},
                      {"n_head", 4},
                      {"resid_pdrop", 0},
                      {"embd_pdrop", 0},
                      {"attn_pdrop", 0},
                      {"bos_token_id", 0},
                      {"eos_token_id", 0}};
    tests::write_text(scratch / "source/config.json", config.dump());
    torch::manual_seed(1);
    const auto model = models::find_architecture(config).create(config, {"causal_lm"});
    std::map<std::string, torch::Tensor> tensors;
    for (const auto& item : model->parameters_by_key()) tensors[item.key()] = item.value();
    io::write_safetensors(scratch / "source/model.safetensors", models::to_views(tensors));
  }
  tests::Outcome start(const std::string& command, const std::string& source, const std::string& out,
                       const std::vector<std::string>& more, const std::vector<std::string>& settings) {
    std::vector<std::string> arguments{
        command, "--quiet", "--json", "--source", source, "--out", (scratch / out).string()};
    arguments.insert(arguments.end(), more.begin(), more.end());
    for (const auto& setting : settings) arguments.insert(arguments.end(), {"--set", setting});
    return graft(arguments);
  }
  /// Of what stands in the documents between "... red" and " blue end", given both.
  double gap_perplexity(const std::string& model) {
    std::string rows;
    for (int i = 0; i < 8; ++i) rows += Json{{"prompt", gap(i)}, {"completion", " green"}}.dump() + "\n";
    tests::write_text(scratch / "gaps.jsonl", rows);
    const auto outcome = graft({"evaluate", "--model", model, "--json", "--data", (scratch / "gaps.jsonl").string()});
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    return Json::parse(outcome.out)["metrics"]["perplexity"];
  }
  static std::string gap(int number) {
    return "<fim_prefix>let n" + std::to_string(number) + " be red<fim_suffix> blue end<fim_middle>";
  }
  std::string source() const { return (scratch / "source").string(); }
  Scratch scratch;
};

TEST_F(CodeModel, LearnsToFillGapsInAdaptAndFinetune) {
  write_source();
  const auto adapted = [&](const std::string& out, const std::string& rate) {
    const auto run = start("adapt", source(), out, {"--corpus", (scratch / "corpus.txt").string()},
                           {"language.fill_in_the_middle=" + rate, "language.suffix_first=0", "adapt.epochs=40",
                            "adapt.learning_rate=5e-3", "adapt.max_length=64", "adapt.batch_size=4",
                            "adapt.held_out_fraction=0.1", "train.threads=1"});
    EXPECT_EQ(run.code, 0) << run.err;
    const auto result = Json::parse(run.out)["adapt"];
    EXPECT_LT(result["after"]["perplexity"].get<double>(), 0.1 * result["before"]["perplexity"].get<double>())
        << "held-out texts are read as they are";
    return (scratch / out / "model").string();
  };
  const auto plain = adapted("plain", "0"), apart = adapted("apart", "0.9");
  const auto without = gap_perplexity(plain), with = gap_perplexity(apart);
  EXPECT_LT(with, 0.5 * without) << "of a gap knows who has seen gaps";

  const auto tuned = start(
      "finetune", apart, "tuned", {"--data", (scratch / "rows.jsonl").string()},
      {"data.task=causal_lm", "language.fill_in_the_middle=0.5", "finetune.head.epochs=1", "finetune.head.min_epochs=1",
       "finetune.head.learning_rates=[1e-4]", "finetune.head.weight_decays=[0.01]", "finetune.unfreeze.max_units=1",
       "finetune.unfreeze.epochs=1", "finetune.full.when=never", "train.threads=1"});
  ASSERT_EQ(tuned.code, 0) << tuned.err;
  EXPECT_LT(gap_perplexity((scratch / "tuned/model").string()), 0.5 * without) << "and goes on knowing them";

  const auto answer = graft({"predict", "--model", apart, "--json", "--max-new-tokens", "12"}, gap(5) + "\n");
  ASSERT_EQ(answer.code, 0) << answer.err;
  EXPECT_EQ(Json::parse(answer.out)["reason"], "end");
}

TEST_F(CodeModel, TokenizersAreLearnedOnceAndSaidSo) {
  const auto learned = learn_tokenizer();
  ASSERT_EQ(learned.code, 0) << learned.err;
  const auto answer = Json::parse(learned.out);
  EXPECT_EQ(answer["vocab_size"], 280);
  EXPECT_EQ(answer["documents"], kDocuments);
  const auto shown = graft({"tokenize", "--model", source()}, Json{{"text", "red<fim_middle>"}}.dump() + "\n");
  ASSERT_EQ(shown.code, 0) << shown.err;
  EXPECT_EQ(Json::parse(shown.out)["ids"].back(), 3);
  const auto again = learn_tokenizer();
  EXPECT_EQ(again.code, 2);
  EXPECT_NE(again.err.find("holds a tokenizer already"), std::string::npos) << again.err;
  const auto expect = [](const std::vector<std::string>& arguments, int code, const std::string& sentence) {
    const auto outcome = graft(arguments);
    EXPECT_EQ(outcome.code, code) << outcome.err;
    EXPECT_NE(outcome.err.find(sentence), std::string::npos) << outcome.err;
  };
  const auto corpus = (scratch / "corpus.txt").string();
  expect({"tokenize"}, 2, "give a model folder by --model, or texts to learn a tokenizer from by --train");
  expect({"tokenize", "--train", corpus}, 2, "give the folder for the tokenizer by --out");
  expect({"tokenize", "--train", corpus, "--out", (scratch / "x").string(), "--vocab-size", "200"}, 2,
         "vocab-size: expected at least 257");
  expect({"tokenize", "--train", (scratch / "none.txt").string(), "--out", (scratch / "x").string()}, 3,
         "there is no such file or folder");
  EXPECT_FALSE(std::filesystem::exists(scratch / "x"));
}

}  // namespace
}  // namespace graft
