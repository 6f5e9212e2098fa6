// Generation: the tokens of transformers, whatever the batch; drawing; stop texts; what is told while it goes on.
#include "graft/run/generation.h"

#include <gtest/gtest.h>

#include "graft/core/random.h"
#include "tests/cli/program.h"
#include "tests/fixtures.h"
#include "tests/models/cases.h"

namespace graft::run {
namespace {

using namespace tests;
using Ids = std::vector<int32_t>;

struct Decoder {
  explicit Decoder(const std::filesystem::path& folder)
      : source(models::Source::open(folder)), loaded(models::load(source, {"causal_lm"}, 0)) {
    loaded.model->eval();
  }
  models::DecoderModel& model() { return dynamic_cast<models::DecoderModel&>(*loaded.model); }
  models::Source source;
  models::Loaded loaded;
};

// AutoModelForCausalLM.from_pretrained(folder).generate(prompt, max_new_tokens=12, do_sample=False, eos_token_id=None),
// transformers 5.23, each prompt alone; the likeliest token leads by at least 0.006.
TEST(Generation, GreedyTokensOfABatchOfUnequalPromptsAreThoseOfTransformers) {
  at::set_num_threads(1);
  const torch::NoGradGuard no_grad;
  const std::map<std::string, std::vector<Ids>> golden{
      {"llama-tied-llama3",
       {{34, 34, 34, 34, 34, 4, 4, 4, 4, 4, 34, 34}, {59, 5, 37, 91, 50, 77, 38, 89, 90, 95, 54, 8}}},
      {"gpt_bigcode-mqa",
       {{79, 44, 41, 24, 89, 44, 44, 41, 44, 44, 44, 89}, {37, 32, 107, 47, 47, 47, 44, 45, 41, 44, 44, 41}}},
      {"starcoder2-gqa",
       {{13, 13, 31, 31, 31, 68, 68, 37, 90, 90, 90, 97}, {47, 101, 101, 101, 101, 101, 101, 101, 101, 101, 31, 31}}}};
  for (const auto& [name, expected] : golden) {
    Decoder decoder(fixture("parity/" + name + "/model"));
    nn::KeyValueCache cache(decoder.model().num_layers(), 2, 20);
    std::vector<Ids> next{{5, 17, 3}, {9, 8, 7, 6, 44, 31, 2}}, found(2);
    for (int step = 0; step < 12; ++step) {
      const auto logits = decoder.model().extend(next, cache);
      for (int b = 0; b < 2; ++b) {
        next[b] = {choose(logits[b], {}, 0)};
        found[b].push_back(next[b][0]);
      }
    }
    EXPECT_EQ(found, expected) << name;
  }
}

TEST(Generation, LogitsThroughTheCacheAreThoseOfTheWholeText) {
  at::set_num_threads(1);
  const torch::NoGradGuard no_grad;
  const Ids text{5, 17, 3, 44, 9, 8, 60, 71, 2};
  for (const auto* type : {"llama", "starcoder2", "gpt_bigcode"}) {
    const Json config{{"model_type", type},
                      {"vocab_size", 97},
                      {"hidden_size", 16},
                      {"num_hidden_layers", 3},
                      {"num_attention_heads", 4},
                      {"num_key_value_heads", 2},
                      {"intermediate_size", 24},
                      {"sliding_window", 3},
                      {"n_embd", 16},
                      {"n_layer", 3},
                      {"n_head", 4},
                      {"max_position_embeddings", 32}};
    torch::manual_seed(1);
    const auto model = models::find_architecture(config).create(config, {"causal_lm"});
    for (auto& item : model->parameters_by_key())
      if (item.value().dim() > 1) item.value().normal_(0, 0.3);
    model->eval();
    auto& decoder = dynamic_cast<models::DecoderModel&>(*model);
    nn::KeyValueCache cache(3, 1, 9);
    decoder.extend({{text.begin(), text.begin() + 2}}, cache);
    for (size_t n = 2; n < text.size(); ++n) {
      const auto stepped = decoder.extend({{text[n]}}, cache);
      nn::KeyValueCache fresh(3, 1, 9);
      const auto whole = decoder.extend({{text.begin(), text.begin() + static_cast<int64_t>(n) + 1}}, fresh);
      EXPECT_LT(relative_difference(stepped, whole), 5e-6) << type << " " << n;
    }
  }
}

TEST(Choosing, FollowsTemperatureTopKAndTopP) {
  const auto logits = torch::log(torch::tensor({0.1, 0.4, 0.3, 0.2}));
  const auto drawn = [&](const GenerationOptions& o) {
    std::vector<double> share(4, 0);
    for (int i = 0; i < 1000; ++i) share[choose(logits, o, (i + 0.5) / 1000)] += 0.001;
    return share;
  };
  const auto expect = [](const std::vector<double>& found, const std::vector<double>& wanted) {
    for (size_t i = 0; i < wanted.size(); ++i) EXPECT_NEAR(found[i], wanted[i], 0.002) << i;
  };
  expect(drawn({.temperature = 0}), {0, 1, 0, 0});
  expect(drawn({.temperature = 1}), {0.1, 0.4, 0.3, 0.2});
  expect(drawn({.temperature = 0.5}), {0.01 / 0.3, 0.16 / 0.3, 0.09 / 0.3, 0.04 / 0.3});
  expect(drawn({.temperature = 1, .top_k = 2}), {0, 4.0 / 7, 3.0 / 7, 0});
  expect(drawn({.temperature = 1, .top_p = 0.7001}), {0, 4.0 / 9, 3.0 / 9, 2.0 / 9});
  expect(drawn({.temperature = 1, .top_p = 0.1}), {0, 1, 0, 0});
}

struct TextGeneration : testing::Test {
  void SetUp() override {
    at::set_num_threads(1);
    write_tiny_decoder(scratch / "source");
    source = models::Source::open(scratch / "source");
    tokenizer = std::make_unique<data::Tokenizer>(data::Tokenizer::load(scratch / "source"));
    // As many rows as the tokenizer has words, so that every token has a text.
    source.config["vocab_size"] = tokenizer->vocab_size();
    torch::manual_seed(2);
    model = source.architecture->create(source.config, {"causal_lm"});
    const torch::NoGradGuard no_grad;
    for (auto& item : model->parameters_by_key())
      if (item.value().dim() > 1) item.value().normal_(0, 0.3);
    model->eval();
  }
  std::vector<Generated> generate(const std::vector<std::string>& prompts, const GenerationOptions& options,
                                  int64_t first = 0, const OnText& on_text = {}) {
    return Generator(*model, source, *tokenizer, options).generate(prompts, first, on_text);
  }
  Scratch scratch;
  models::Source source;
  std::shared_ptr<models::Model> model;
  std::unique_ptr<data::Tokenizer> tokenizer;
  const std::vector<std::string> prompts{"the film", "this story was a very bad picture of the actor", "music and"};
};

TEST_F(TextGeneration, APromptGoesOnAsItWouldAlone) {
  for (const double temperature : {0.0, 1.5}) {
    GenerationOptions o;
    o.max_new_tokens = 10;
    o.temperature = temperature;
    const auto together = generate(prompts, o);
    for (size_t i = 0; i < prompts.size(); ++i) {
      const auto alone = generate({prompts[i]}, o, static_cast<int64_t>(i));
      EXPECT_EQ(together[i].ids, alone[0].ids) << temperature << " " << i;
      EXPECT_EQ(together[i].text, alone[0].text);
    }
    o.seed = 1;
    EXPECT_EQ(generate(prompts, o)[0].ids == together[0].ids, temperature == 0);
  }
}

TEST_F(TextGeneration, EndsBeforeAStopTextAndTellsNothingOfIt) {
  GenerationOptions o;
  o.max_new_tokens = 12;
  o.temperature = 2;
  Generated whole;
  for (; o.seed < 100 && whole.reason != "length"; ++o.seed) whole = generate(prompts, o)[1];
  --o.seed;
  ASSERT_EQ(whole.reason, "length");
  ASSERT_GT(whole.text.size(), 20u);
  const auto stop = whole.text.substr(12, 6);
  o.stop = {"never", stop};
  std::map<int64_t, std::string> told;
  const auto stopped = generate(prompts, o, 0, [&](int64_t index, const std::string& part) { told[index] += part; });
  EXPECT_EQ(stopped[1].text, whole.text.substr(0, whole.text.find(stop)));
  EXPECT_EQ(stopped[1].reason, "stop");
  for (size_t i = 0; i < prompts.size(); ++i) EXPECT_EQ(told[static_cast<int64_t>(i)], stopped[i].text) << i;
}

TEST_F(TextGeneration, EndsAtTheContextAndRefusesAPromptThatFillsIt) {
  GenerationOptions o;
  o.max_new_tokens = 1000;
  source.config.erase("eos_token_id");
  const auto result = generate({"the film"}, o)[0];
  EXPECT_TRUE(result.reason == "length" || result.reason == "end");
  EXPECT_LE(result.ids.size() + 3, 64u);
  std::string longest = "the";
  for (int i = 0; i < 70; ++i) longest += " film";
  const auto message = message_of([&] { generate({"the film", longest}, o); });
  EXPECT_EQ(message,
            "prompt 2: has 72 tokens, and the model's context of 64 leaves no room to go on. Shorten the prompt.");
}

TEST_F(TextGeneration, SettingsThatCannotBeAreNamed) {
  GenerationOptions o;
  o.top_p = 0;
  o.temperature = -1;
  const auto message = message_of([&] { generate(prompts, o); });
  EXPECT_NE(message.find("temperature: expected at least 0, found -1"), std::string::npos) << message;
  EXPECT_NE(message.find("top-p: expected above 0, at most 1, found 0"), std::string::npos) << message;
}

TEST(PredictGenerates, FromTheCommandLine) {
  const Scratch scratch;
  write_tiny_decoder(scratch / "source");
  const auto model = (scratch / "source").string();
  const auto rows = tests::graft({"predict", "--model", model, "--json", "--max-new-tokens", "5"},
                                 "the film\n{\"text\": \"this story was good and\"}\n");
  ASSERT_EQ(rows.code, 0) << rows.err;
  std::istringstream lines(rows.out);
  std::string first, second;
  std::getline(lines, first);
  std::getline(lines, second);
  EXPECT_EQ(Json::parse(first)["text"], "the film");
  EXPECT_LE(Json::parse(second)["tokens"], 5);
  const auto generated = Json::parse(first)["generated"].get<std::string>();
  for (const auto& arguments : {std::vector<std::string>{}, {"--stream"}}) {
    std::vector<std::string> all{"predict", "--model", model, "--max-new-tokens", "5"};
    all.insert(all.end(), arguments.begin(), arguments.end());
    EXPECT_EQ(tests::graft(all, "the film\n").out, "the film" + generated + "\n");
  }
  const auto bad = tests::graft({"predict", "--model", model, "--top-p", "2"}, "the film\n");
  EXPECT_EQ(bad.code, 2);
  EXPECT_NE(bad.err.find("top-p"), std::string::npos) << bad.err;
}

}  // namespace
}  // namespace graft::run
