// Instruction data through the whole schedule, as a user starts it: conversations, prompts with completions, plain texts.
#include <gtest/gtest.h>

#include <cmath>

#include "graft/core/random.h"
#include "tests/cli/program.h"

namespace graft {
namespace {

using tests::graft;
using tests::Scratch;

const std::vector<std::string> kWords{"this", "was", "a", "film"};

/// "good" is answered by "bad" and "bad" by "good".
void write_rows(const std::filesystem::path& folder,
                const std::function<Json(const std::string&, const std::string&)>& row) {
  Random random(3);
  for (const auto& [name, rows] : {std::pair{"train", 48}, {"validation", 16}, {"test", 12}}) {
    std::string text;
    for (int i = 0; i < rows; ++i) {
      std::string question = i % 2 ? "good" : "bad";
      for (uint64_t k = random.below(3); k > 0; --k) question += " " + kWords[random.below(kWords.size())];
      text += row(question, i % 2 ? "bad" : "good").dump() + "\n";
    }
    tests::write_text(folder / (std::string(name) + ".jsonl"), text);
  }
}

Json conversation(const std::string& question, const std::string& answer) {
  return {{"messages", {{{"role", "user"}, {"content", question}}, {{"role", "assistant"}, {"content", answer}}}}};
}

void write_source(const std::filesystem::path& folder) {
  tests::write_tiny_decoder(folder);
  auto config = Json::parse(tests::read_text(folder / "tokenizer_config.json"));
  config["chat_template"] =
      "{{ bos_token }} {% for m in messages %}{{ m.content }} {% if m.role == 'assistant' %}{{ eos_token }}{% endif %}"
      "{% endfor %}";
  tests::write_text(folder / "tokenizer_config.json", config.dump());
}

std::vector<std::string> arguments(const Scratch& scratch, const std::string& out,
                                   const std::string& command = "finetune") {
  std::vector<std::string> all{command,
                               "--quiet",
                               "--json",
                               "--source",
                               (scratch / "source").string(),
                               "--data",
                               (scratch / "data").string(),
                               "--out",
                               (scratch / out).string()};
  for (const auto* setting :
       {"data.task=causal_lm", "finetune.head.epochs=2", "finetune.head.min_epochs=1",
        "finetune.head.learning_rates=[1e-2]", "finetune.head.weight_decays=[0.01]", "finetune.unfreeze.max_units=2",
        "finetune.unfreeze.epochs=4", "finetune.unfreeze.patience_units=0", "finetune.unfreeze.learning_rate=2e-2",
        "finetune.unfreeze.head_learning_rate=1e-2", "finetune.full.when=always", "finetune.full.epochs=4",
        "finetune.full.learning_rate=1e-2", "train.checkpoint_seconds=0"}) {
    all.push_back("--set");
    all.push_back(setting);
  }
  return all;
}

TEST(Instructions, ConversationsGoThroughAllPhasesAndTheModelAnswers) {
  const Scratch scratch;
  write_source(scratch / "source");
  write_rows(scratch / "data", conversation);
  const auto run = graft(arguments(scratch, "run"));
  ASSERT_EQ(run.code, 0) << run.err;
  const auto result = Json::parse(run.out);
  EXPECT_EQ(result["finetune"]["metric"], "perplexity");
  EXPECT_EQ(result["finetune"]["phases"].size(), 4u);  // head, two units, full
  EXPECT_FALSE(result["finetune"].contains("verdict"));
  double best = result["finetune"]["source"]["perplexity"];
  for (const auto& phase : result["finetune"]["phases"]) {
    EXPECT_LE(phase["validation"].get<double>(), best) << "no phase ends below its start, not even the head";
    best = phase["validation"];
  }
  EXPECT_LT(result["test"]["perplexity"].get<double>(), 1.6) << "the answer follows from the question";
  const auto model = scratch / "run/model";
  const auto config = Json::parse(tests::read_text(model / "config.json"));
  EXPECT_EQ(config["architectures"][0], "LlamaForCausalLM");
  EXPECT_TRUE(Json::parse(tests::read_text(model / "tokenizer_config.json")).contains("chat_template"));

  const auto evaluation =
      graft({"evaluate", "--model", model.string(), "--data", (scratch / "data/test.jsonl").string(), "--json"});
  ASSERT_EQ(evaluation.code, 0) << evaluation.err;
  EXPECT_NEAR(Json::parse(evaluation.out)["metrics"]["loss"].get<double>(), result["test"]["loss"].get<double>(), 1e-6);

  const auto answers = graft({"predict", "--model", model.string(), "--json", "--max-new-tokens", "3",
                              (scratch / "data/test.jsonl").string()});
  ASSERT_EQ(answers.code, 0) << answers.err;
  std::istringstream lines(answers.out);
  int right = 0;
  for (std::string line; std::getline(lines, line);) {
    const auto row = Json::parse(line);
    const auto& question = row["messages"][0]["content"].get_ref<const std::string&>();
    EXPECT_EQ(row["messages"].size(), 1u) << "the answer of the row is not shown to the model";
    right +=
        row["generated"].get<std::string>().find(question.starts_with("good") ? "bad" : "good") != std::string::npos;
    EXPECT_EQ(row["reason"], "end");
  }
  EXPECT_GE(right, 11) << answers.out;
}

TEST(Instructions, TokenizeShowsWhatIsLearned) {
  const Scratch scratch;
  write_source(scratch / "source");
  const auto shown = graft(
      {"tokenize", "--model", (scratch / "source").string()},
      conversation("good film", "bad").dump() + "\n" + Json{{"prompt", "good"}, {"completion", " film"}}.dump() + "\n");
  ASSERT_EQ(shown.code, 0) << shown.err;
  std::istringstream lines(shown.out);
  std::string line;
  std::getline(lines, line);
  auto row = Json::parse(line);  // <s> good film bad </s>
  ASSERT_EQ(row["ids"].size(), 5u) << line;
  EXPECT_EQ(row["labels"], (Json{-100, -100, row["ids"][3], row["ids"][4], -100})) << line;
  std::getline(lines, line);
  row = Json::parse(line);  // <s> good film </s>
  EXPECT_EQ(row["labels"], (Json{-100, row["ids"][2], row["ids"][3], -100})) << line;
}

TEST(Instructions, RefusedConversationsAreSkippedWhenAskedFor) {
  const Scratch scratch;
  write_source(scratch / "source");
  write_rows(scratch / "data", conversation);
  auto with = arguments(scratch, "run");
  tests::write_text(
      scratch / "picky.jinja",
      "{% if 'film' in messages[0].content %}{{ raise_exception('no films') }}{% endif %}{{ bos_token }} "
      "{% for m in messages %}{{ m.content }} {% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}");
  with.insert(with.end(), {"--set", "language.chat_template=" + (scratch / "picky.jinja").string(), "--set",
                           "finetune.unfreeze.max_units=0"});
  const auto stopped = graft(with);
  EXPECT_EQ(stopped.code, 3);
  EXPECT_NE(stopped.err.find("no films"), std::string::npos) << stopped.err;
  std::filesystem::remove_all(scratch / "run");
  with.insert(with.end(), {"--set", "data.bad_rows=skip"});
  const auto run = graft(with);
  ASSERT_EQ(run.code, 0) << run.err;
  EXPECT_LT(Json::parse(run.out)["test"]["examples"], 12);
  EXPECT_EQ(tests::read_text(scratch / "run/model/chat_template.jinja"), tests::read_text(scratch / "picky.jinja"));
}

TEST(Instructions, OnlyTheAnswerIsLearned) {
  const Scratch scratch;
  write_source(scratch / "source");
  write_rows(scratch / "data", [](const std::string& question, const std::string& answer) {
    return Json{{"prompt", question}, {"completion", " " + answer}};
  });
  const auto answers = graft(arguments(scratch, "answers"));
  ASSERT_EQ(answers.code, 0) << answers.err;
  auto with = arguments(scratch, "everything");
  with.insert(with.end(), {"--set", "language.learn=everything"});
  const auto everything = graft(with);
  ASSERT_EQ(everything.code, 0) << everything.err;
  EXPECT_LT(Json::parse(answers.out)["test"]["loss"].get<double>(),
            Json::parse(everything.out)["test"]["loss"].get<double>())
      << "questions are drawn at random, so their loss stays";
}

TEST(Instructions, ResumedAfterAKillItEndsWithTheSameBytes) {
  const Scratch scratch;
  write_source(scratch / "source");
  write_rows(scratch / "data", conversation);
  ASSERT_EQ(graft(arguments(scratch, "whole")).code, 0);
  for (const int operation : {60, 150}) {
    const auto name = "run" + std::to_string(operation);
    const auto first = graft(arguments(scratch, name), "", {"GRAFT_TEST_FAULT=kill:" + std::to_string(operation)});
    ASSERT_EQ(first.code, 128 + SIGKILL) << first.err;
    const auto resumed = graft({"finetune", "--quiet", "--resume", (scratch / name).string()});
    ASSERT_EQ(resumed.code, 0) << resumed.err;
    EXPECT_EQ(tests::run_fingerprint(scratch / name), tests::run_fingerprint(scratch / "whole")) << operation;
  }
}

TEST(Instructions, FollowAnAdaptation) {
  const Scratch scratch;
  write_source(scratch / "source");
  write_rows(scratch / "data", conversation);
  tests::write_text(scratch / "corpus.txt", [] {
    Random random(9);
    std::string text;
    for (int i = 0; i < 120; ++i) {
      for (int k = 0; k < 5; ++k) text += kWords[random.below(kWords.size())] + " ";
      text += i % 2 ? "good\n" : "bad\n";
    }
    return text;
  }());
  auto with = arguments(scratch, "run", "run");
  with.insert(with.end(), {"--corpus", (scratch / "corpus.txt").string(), "--set", "adapt.epochs=1", "--set",
                           "adapt.max_length=24"});
  const auto run = graft(with);
  ASSERT_EQ(run.code, 0) << run.err;
  const auto result = Json::parse(run.out);
  EXPECT_LT(result["adapt"]["after"]["perplexity"], result["adapt"]["before"]["perplexity"]);
  EXPECT_LT(result["test"]["perplexity"].get<double>(), 2);
  EXPECT_TRUE(Json::parse(tests::read_text(scratch / "run/adapted/tokenizer_config.json")).contains("chat_template"));
}

TEST(Instructions, WithAdaptersAndADryRun) {
  const Scratch scratch;
  write_source(scratch / "source");
  write_rows(scratch / "data", [](const std::string& q, const std::string& a) { return Json{{"text", q + " " + a}}; });
  auto with = arguments(scratch, "run");
  for (const auto* setting : {"lora.rank=4", "lora.merge=false"}) with.insert(with.end(), {"--set", setting});
  const auto run = graft(with);
  ASSERT_EQ(run.code, 0) << run.err;
  const auto config = Json::parse(tests::read_text(scratch / "run/model/adapter_config.json"));
  EXPECT_EQ(config["task_type"], "CAUSAL_LM");
  auto dry = arguments(scratch, "dry");
  dry.push_back("--dry-run");
  const auto plan = graft(dry);
  ASSERT_EQ(plan.code, 0) << plan.err;
  EXPECT_EQ(Json::parse(plan.out)["phases"].size(), 4u);
}

TEST(InstructionsBadInput, IsASentence) {
  const Scratch scratch;
  tests::write_tiny_decoder(scratch / "source");  // without a chat template
  write_rows(scratch / "data", conversation);
  const auto failing = [&](std::vector<std::string> with, int code, const std::string& sentence) {
    const auto outcome = graft(with);
    EXPECT_EQ(outcome.code, code) << outcome.err;
    EXPECT_NE(outcome.err.find(sentence), std::string::npos) << outcome.err;
    std::filesystem::remove_all(scratch / "run");
  };
  failing(arguments(scratch, "run"), 4, "the tokenizer has no chat template");
  auto with = arguments(scratch, "run");
  tests::write_text(scratch / "bad.jinja", "{{ raise_exception('no ' ~ messages[0].role) }}");
  with.insert(with.end(), {"--set", "language.chat_template=" + (scratch / "bad.jinja").string()});
  failing(with, 3, "training example 1: " + (scratch / "bad.jinja").string() + " refuses the conversation: no user");
  with = arguments(scratch, "run");
  with.insert(with.end(), {"--set", "language.learn=answer", "--set", "language.fill_in_the_middle=2"});
  failing(with, 2, "did you mean \"answers\"?");
  failing(with, 2, "language.fill_in_the_middle: expected from 0 to 1, found 2");
  with = arguments(scratch, "run");
  with.insert(with.end(), {"--set", "language.fill_in_the_middle=0.5"});
  failing(with, 4, "the tokenizer has no tokens for it; looked for <fim_prefix>");
  std::filesystem::remove_all(scratch / "source");
  tests::write_tiny_source(scratch / "source");
  failing(arguments(scratch, "run"), 4, "the task causal_lm needs a model that was pretrained left to right");
  const auto evaluation =
      graft({"evaluate", "--model", (scratch / "source").string(), "--data", (scratch / "data/test.jsonl").string()});
  EXPECT_EQ(evaluation.code, 4);
}

}  // namespace
}  // namespace graft
