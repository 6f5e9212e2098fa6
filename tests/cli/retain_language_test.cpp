// A language model that knows general text learns something else: what is kept, by KL, replay and adapters, and how it is told.
#include <gtest/gtest.h>

#include <cmath>

#include "graft/core/random.h"
#include "graft/report/journal.h"
#include "graft/retain/anchors.h"
#include "tests/cli/program.h"

namespace graft {
namespace {

using tests::graft;
using tests::Scratch;

std::vector<std::string> with(std::vector<std::string> arguments, const std::vector<std::string>& settings) {
  for (const auto& setting : settings) arguments.insert(arguments.end(), {"--set", setting});
  return arguments;
}

/// Texts of two kinds: the source is trained on sentences with an order of words of their own ("general"), then meets the
/// same words in another order ("domain", and conversations in "data").
void write_texts(const Scratch& scratch) {
  const std::vector<std::string> words{"film", "story", "actor", "scene", "plot", "music", "camera", "ending"};
  Random random(5);
  for (const auto& [name, step] : {std::pair{"general", 1}, {"domain", 3}}) {
    std::string text;
    for (int i = 0; i < 150; ++i) {
      auto place = random.below(words.size());
      for (uint64_t n = 6 + random.below(8); n > 0; --n, place = (place + step) % words.size())
        text += words[random.uniform() < 0.15 ? random.below(words.size()) : place] + (n > 1 ? " " : "\n");
    }
    tests::write_text(scratch / (std::string(name) + ".txt"), text);
  }
  std::filesystem::create_directories(scratch / "data");
  for (const auto& [name, rows] : {std::pair{"train", 48}, {"validation", 16}, {"test", 12}}) {
    std::string text;
    for (int i = 0; i < rows; ++i) {
      const auto place = random.below(words.size());
      text += Json{{"prompt", words[place] + " " + words[(place + 3) % words.size()]},
                   {"completion", " " + words[(place + 6) % words.size()] + " " + words[(place + 9) % words.size()]}}
                  .dump() +
              "\n";
    }
    tests::write_text(scratch / "data" / (std::string(name) + ".jsonl"), text);
  }
}

std::vector<std::string> adapt_run(const Scratch& scratch, const std::string& source, const std::string& corpus,
                                   const std::string& out, const std::vector<std::string>& settings) {
  return with(
      {"adapt", "--json", "--source", (scratch / source).string(), "--corpus", (scratch / (corpus + ".txt")).string(),
       "--out", (scratch / out).string(), "--set", "adapt.max_length=24", "--set", "adapt.held_out_fraction=0.2",
       "--set", "adapt.batch_size=8", "--set", "train.threads=1", "--set", "train.checkpoint_seconds=0"},
      settings);
}

/// "first/model": a tiny LLaMA (or BERT) that has learned the general text.
void write_first(const Scratch& scratch, bool masked = false) {
  masked ? tests::write_tiny_source(scratch / "source") : tests::write_tiny_decoder(scratch / "source");
  write_texts(scratch);
  const auto run =
      graft(adapt_run(scratch, "source", "general", "first", {"adapt.epochs=12", "adapt.learning_rate=1e-2"}));
  ASSERT_EQ(run.code, 0) << run.err;
}

std::vector<std::string> general(const Scratch& scratch, std::vector<std::string> settings = {}) {
  settings.push_back("retain.corpus=" + (scratch / "general.txt").string());
  settings.push_back("retain.corpus_held_out=0.2");
  settings.push_back("max_length=24");
  return settings;
}

std::vector<std::string> finetune_run(const Scratch& scratch, const std::string& out,
                                      const std::vector<std::string>& settings) {
  return with(with({"finetune", "--json", "--source", (scratch / "first/model").string(), "--data",
                    (scratch / "data").string(), "--out", (scratch / out).string()},
                   {"data.task=causal_lm", "finetune.head.epochs=2", "finetune.head.min_epochs=1",
                    "finetune.head.learning_rates=[1e-2]", "finetune.head.weight_decays=[0.01]",
                    "finetune.unfreeze.max_units=2", "finetune.unfreeze.epochs=3", "finetune.unfreeze.patience_units=0",
                    "finetune.unfreeze.learning_rate=1e-2", "finetune.unfreeze.head_learning_rate=1e-2",
                    "finetune.full.when=always", "finetune.full.epochs=4", "finetune.full.learning_rate=1e-2",
                    "train.batch_size=8", "train.checkpoint_seconds=0", "train.threads=1"}),
              settings);
}

double lost(const Json& retained) {
  return std::log(retained["after"]["value"].get<double>() / retained["source"]["value"].get<double>());
}

TEST(RetainLanguage, AdaptingTellsWhatTheSourceLostAndKlAndReplayKeepIt) {
  const Scratch scratch;
  write_first(scratch);
  const auto adapted = [&](const std::string& out, std::vector<std::string> settings) {
    for (const auto* setting : {"adapt.epochs=6", "adapt.learning_rate=5e-3"}) settings.push_back(setting);
    const auto run = graft(adapt_run(scratch, "first/model", "domain", out, general(scratch, std::move(settings))));
    EXPECT_EQ(run.code, 0) << run.err;
    EXPECT_NE(run.err.find("kept of the source after adapt: perplexity"), std::string::npos) << run.err;
    return std::pair{Json::parse(run.out)["adapt"], run.err};
  };
  const auto [free, told] = adapted("free", {});
  EXPECT_EQ(free["retained"]["source"]["metric"], "perplexity");
  EXPECT_LT(free["after"]["perplexity"], free["before"]["perplexity"]);
  EXPECT_GT(lost(free["retained"]), 0.1) << "larger is worse";
  for (const auto& [name, settings] : std::map<std::string, std::vector<std::string>>{
           {"kl", {"retain.kl.coefficient=2"}},
           {"reverse", {"retain.kl.coefficient=2", "retain.kl.direction=source_tuned"}},
           {"stored", {"retain.kl.coefficient=2", "retain.kl.teacher=top_k", "retain.kl.top_k=8"}},
           {"general", {"retain.kl.coefficient=2", "retain.kl.corpus=true"}},
           {"replay", {"retain.replay.fraction=0.3"}},
           {"both", {"retain.replay.fraction=0.3", "retain.kl.coefficient=2", "retain.kl.corpus=true"}},
           {"l2sp", {"retain.l2sp=10"}},
           {"ewc", {"retain.ewc.strength=1e4"}}}) {
    const auto [kept, err] = adapted(name, settings);
    EXPECT_LT(lost(kept["retained"]), 0.8 * lost(free["retained"])) << name;
    EXPECT_EQ(kept["retained"]["source"], free["retained"]["source"]) << name;
    if (name == "stored") {
      EXPECT_NE(err.find("likeliest tokens of each of"), std::string::npos) << err;
    }
    if (name == "kl") {
      EXPECT_NE(err.find("asked in each step, from where the model begins to learn"), std::string::npos) << err;
    }
    const report::Journal journal(scratch / name / "journal.jsonl");
    bool seen = false;
    for (const auto& entry : journal.entries())
      if (entry["event"] == "epoch" && entry["phase"] == "adapt") seen = seen || entry.contains("terms");
    EXPECT_TRUE(seen) << name;
  }
  // The command measures what the run measured.
  const auto measured =
      graft({"retain", "measure", "--json", (scratch / "first/model").string(), (scratch / "free/model").string(),
             "--corpus", (scratch / "general.txt").string(), "--max-length", "24", "--threads", "1"});
  ASSERT_EQ(measured.code, 0) << measured.err;
  const auto answer = Json::parse(measured.out);
  EXPECT_EQ(answer["before"]["metric"], "perplexity");
  EXPECT_NEAR(std::log(answer["after"]["value"].get<double>() / answer["before"]["value"].get<double>()),
              lost(free["retained"]), 0.5 * lost(free["retained"]))
      << "another part is held out here";
}

TEST(RetainLanguage, FinetuningACausalModelKeepsGeneralText) {
  const Scratch scratch;
  write_first(scratch);
  const auto tuned = [&](const std::string& out, const std::vector<std::string>& settings) {
    const auto run = graft(finetune_run(scratch, out, general(scratch, settings)));
    EXPECT_EQ(run.code, 0) << run.err;
    return std::pair{Json::parse(run.out), run.err};
  };
  const auto loss_of = [](const Json& result) {
    return std::log(result["finetune"]["phases"].back()["retained"]["value"].get<double>() /
                    result["retained"]["source"]["value"].get<double>());
  };
  const auto free = tuned("free", {}).first, kl = tuned("kl", {"retain.kl.coefficient=1"}).first,
             replay = tuned("replay", {"retain.replay.fraction=0.3"}).first;
  EXPECT_GT(loss_of(free), 0.1);
  EXPECT_LT(loss_of(kl), 0.8 * loss_of(free));
  EXPECT_LT(loss_of(replay), 0.8 * loss_of(free));
  EXPECT_LT(free["finetune"]["phases"].back()["retained"]["cka"], 1);
  for (const auto& phase : kl["finetune"]["phases"]) EXPECT_EQ(phase["retained"]["metric"], "perplexity");
  const report::Journal journal(scratch / "kl" / "journal.jsonl");
  for (const auto& entry : journal.entries())
    if (entry["event"] == "epoch") {
      EXPECT_GE(entry["terms"]["kl"]["kl"], 0);
      EXPECT_EQ(entry["terms"]["kl"]["coefficient"], 1);
    }

  const auto [lora, told] = tuned("lora", {"retain.kl.coefficient=1", "lora.rank=4"});
  EXPECT_NE(told.find("the model itself without its adapters"), std::string::npos) << told;
  EXPECT_LT(loss_of(lora), loss_of(free));

  // A budget is of the logarithm of perplexity, and the right way round.
  const auto budget = tuned("budget", {"retain.max_forgetting=0.05"}).first["retained"];
  EXPECT_LE(budget["taken"]["retained"]["value"].get<double>(),
            budget["at_first"]["value"].get<double>() * std::exp(0.0501));
  EXPECT_LT(budget["taken"]["share"], 1);
}

TEST(RetainLanguage, AfterAnAdaptationAllOfTheSourceIsTheTeacher) {
  const Scratch scratch;
  write_first(scratch);
  auto arguments = finetune_run(scratch, "run",
                                general(scratch, {"retain.kl.coefficient=1", "adapt.epochs=2", "adapt.max_length=24",
                                                  "adapt.held_out_fraction=0.2"}));
  arguments.front() = "run";
  arguments.insert(arguments.end(), {"--corpus", (scratch / "domain.txt").string()});
  const auto run = graft(arguments);
  ASSERT_EQ(run.code, 0) << run.err;
  EXPECT_NE(run.err.find("likeliest tokens of each of"), std::string::npos) << run.err;
  const auto result = Json::parse(run.out);
  EXPECT_EQ(result["retained"]["adapt"]["metric"], "perplexity");
  EXPECT_EQ(result["adapt"]["retained"]["source"]["value"], result["retained"]["source"]["value"]);
  auto live = with(arguments, {"retain.kl.teacher=live"});
  for (auto& argument : live)
    if (argument == (scratch / "run").string()) argument = (scratch / "live").string();
  const auto asked = graft(live);
  ASSERT_EQ(asked.code, 0) << asked.err;
  EXPECT_NE(asked.err.find("all of it, for the model was adapted before"), std::string::npos) << asked.err;
}

TEST(RetainLanguage, AModelThatFillsMasksIsHeldWhileItAdaptsAndLearnsClasses) {
  const Scratch scratch;
  write_first(scratch, true);
  // Other words than the general text has: filling their masks costs what was known of that.
  const std::vector<std::string> others{"script", "picture", "the", "this", "was", "very", "quite", "with"};
  Random random(6);
  std::string domain;
  for (int i = 0; i < 150; ++i) {
    for (uint64_t n = 6 + random.below(8); n > 0; --n)
      domain += others[random.below(others.size())] + (n > 1 ? " " : "\n");
  }
  tests::write_text(scratch / "domain.txt", domain);
  const auto adapted = [&](const std::string& out, std::vector<std::string> settings) {
    for (const auto* setting : {"adapt.epochs=6", "adapt.learning_rate=5e-3", "adapt.mask_probability=0.3"})
      settings.push_back(setting);
    const auto run = graft(adapt_run(scratch, "first/model", "domain", out, general(scratch, std::move(settings))));
    EXPECT_EQ(run.code, 0) << run.err;
    return Json::parse(run.out)["adapt"]["retained"];
  };
  const auto free = adapted("free", {});
  EXPECT_GT(lost(free), 0.05);
  EXPECT_LT(lost(adapted("kl", {"retain.kl.coefficient=3"})), lost(free));
  EXPECT_LT(lost(adapted("replay", {"retain.replay.fraction=0.5"})), lost(free));

  const auto stored = graft(adapt_run(scratch, "first/model", "domain", "stored",
                                      general(scratch, {"retain.kl.coefficient=1", "retain.kl.teacher=top_k"})));
  EXPECT_EQ(stored.code, 2);
  EXPECT_NE(stored.err.find("masks are drawn anew in each epoch"), std::string::npos) << stored.err;

  // A new head has no tokens to say; on general text the language head of the source is asked.
  const std::vector<std::string> any{"scene", "plot", "music", "actor"};
  std::filesystem::create_directories(scratch / "labelled");
  for (const auto& [name, rows] : {std::pair{"train", 64}, {"validation", 32}, {"test", 16}}) {
    std::string text;
    for (int i = 0; i < rows; ++i) {
      std::string words = i % 2 ? "film film film" : "ending ending ending";
      for (uint64_t n = 1 + random.below(3); n > 0; --n) words += " " + any[random.below(any.size())];
      text += Json{{"text", words}, {"label", i % 2 ? "first" : "last"}}.dump() + "\n";
    }
    tests::write_text(scratch / "labelled" / (std::string(name) + ".jsonl"), text);
  }
  const auto classes = [&](const std::string& out, const std::vector<std::string>& settings) {
    return graft(with(
        with({"finetune", "--json", "--source", (scratch / "first/model").string(), "--data",
              (scratch / "labelled").string(), "--out", (scratch / out).string()},
             // a head that has learned nothing, so that the blocks have to move
             {"finetune.head.epochs=1", "finetune.head.min_epochs=1", "finetune.head.learning_rates=[1e-5]",
              "finetune.head.weight_decays=[0.01]", "finetune.head.verdict=false", "finetune.head.closed_form=false",
              "finetune.unfreeze.max_units=2", "finetune.unfreeze.epochs=12", "finetune.unfreeze.learning_rate=1e-2",
              "finetune.unfreeze.head_learning_rate=1e-2", "finetune.unfreeze.patience_units=0",
              "finetune.full.when=never", "train.batch_size=8", "train.threads=1"}),
        general(scratch, settings)));
  };
  const auto refused = classes("refused", {"retain.kl.coefficient=1"});
  EXPECT_EQ(refused.code, 2);
  EXPECT_NE(refused.err.find("gives no distribution over tokens. Hold it on general text"), std::string::npos)
      << refused.err;
  const auto loss_of = [&](const std::string& out, const std::vector<std::string>& settings) {
    const auto run = classes(out, settings);
    EXPECT_EQ(run.code, 0) << run.err;
    const auto result = Json::parse(run.out);
    return std::log(result["finetune"]["phases"].back()["retained"]["value"].get<double>() /
                    result["retained"]["source"]["value"].get<double>());
  };
  const auto without = loss_of("without", {});
  EXPECT_GT(without, 0);
  EXPECT_LT(loss_of("held", {"retain.kl.coefficient=5", "retain.kl.corpus=true"}), without);
  EXPECT_LT(loss_of("replayed", {"retain.replay.fraction=0.5"}), without);
}

TEST(RetainLanguage, TheFisherIsTakenFromGeneralText) {
  for (const bool masked : {false, true}) {
    const Scratch scratch;
    masked ? tests::write_tiny_source(scratch / "source") : tests::write_tiny_decoder(scratch / "source");
    write_texts(scratch);
    for (const auto& [labels, told] :
         std::map<std::string, std::string>{{"auto", "own"}, {"own", "own"}, {"given", "given"}}) {
      const auto file = (scratch / (labels + ".safetensors")).string();
      const auto made = graft({"retain", "fisher", "--json", "--model", (scratch / "source").string(), "--corpus",
                               (scratch / "general.txt").string(), "--labels", labels, "--examples", "12",
                               "--max-length", "24", "--out", file});
      ASSERT_EQ(made.code, 0) << made.err;
      const auto anchors = retain::read_anchors(file);
      EXPECT_EQ(anchors.domains[0]["labels"], told);
      EXPECT_EQ(anchors.domains[0]["task"], masked ? "masked_lm" : "causal_lm");
      double sum = 0;
      for (const auto& [key, anchor] : anchors.of) sum += anchor.fisher.sum().item<double>();
      EXPECT_GT(sum, 0);
    }
  }
}

TEST(RetainLanguage, RefusesWhatCannotBe) {
  const Scratch scratch;
  tests::write_tiny_decoder(scratch / "source");
  write_texts(scratch);
  const auto refused = [&](std::vector<std::string> arguments, const std::string& sentence) {
    const auto run = graft(arguments);
    EXPECT_EQ(run.code, 2) << run.err;
    EXPECT_NE(run.err.find(sentence), std::string::npos) << run.err;
    std::filesystem::remove_all(scratch / "run");
  };
  const auto adapt = [&](const std::vector<std::string>& settings) {
    return adapt_run(scratch, "source", "domain", "run", settings);
  };
  refused(adapt({"retain.kl.target=0.1"}), "retain.kl.target: adapts retain.kl.coefficient, which is 0");
  refused(adapt({"retain.kl.direction=both"}), "retain.kl.direction: expected one of tuned_source, source_tuned");
  refused(adapt({"retain.kl.corpus=true", "retain.kl.coefficient=1"}),
          "retain.kl.corpus: holds the KL on retain.corpus");
  refused(adapt({"retain.lwf.weight=1"}), "retain.lwf: is for finetuning");
  refused(adapt({"retain.max_forgetting=0.1"}), "are for finetuning");
  refused(adapt({"retain.replay.fraction=0.1"}), "retain.corpus");
  refused(adapt({"retain.corpus=x", "retain.source_data.path=y"}), "retain.source_data and retain.corpus: give one");
  refused(adapt({"retain.corpus=x", "retain.corpus_held_out=1"}), "retain.corpus_held_out: expected between 0 and 1");
  refused({"retain", "measure", (scratch / "source").string(), (scratch / "source").string()}, "--corpus");
  // A source without its language head.
  auto config = Json::parse(tests::read_text(tests::fixture("parity/llama-seqcls/model/config.json")));
  std::filesystem::create_directories(scratch / "headless");
  for (const auto& file : std::filesystem::directory_iterator(scratch / "source"))
    std::filesystem::copy_file(file, scratch / "headless" / file.path().filename());
  for (const auto* name : {"config.json", "model.safetensors"})
    std::filesystem::copy_file(tests::fixture("parity/llama-seqcls/model") / name, scratch / "headless" / name,
                               std::filesystem::copy_options::overwrite_existing);
  refused(adapt_run(scratch, "headless", "domain", "run", general(scratch)), "has no trained language head");
  refused(adapt_run(scratch, "headless", "domain", "run", {"retain.kl.coefficient=1"}), "has no trained language head");
}

TEST(RetainLanguageSlow, ResumedAfterAKillItEndsWithTheSameBytes) {
  const Scratch scratch;
  write_first(scratch);
  const auto arguments = [&](const std::string& out) {
    auto all =
        finetune_run(scratch, out,
                     general(scratch, {"retain.kl.coefficient=0.3", "retain.kl.target=0.02", "retain.kl.corpus=true",
                                       "retain.kl.teacher=live", "retain.replay.fraction=0.2", "retain.l2sp=0.1",
                                       "adapt.epochs=2", "adapt.max_length=24", "adapt.held_out_fraction=0.2"}));
    all.front() = "run";
    all.insert(all.end(), {"--quiet", "--corpus", (scratch / "domain.txt").string()});
    return all;
  };
  ASSERT_EQ(graft(arguments("whole")).code, 0);
  EXPECT_GE(tests::expect_same_after_kills(scratch / "whole", {12, 45, 90, 150, 210, 280}, arguments), 4);
}

}  // namespace
}  // namespace graft
