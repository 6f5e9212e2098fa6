// Adapters change nothing until they learn, are all that learns beside the head, and merged compute what they did beside.
#include "graft/models/lora.h"

#include <gtest/gtest.h>

#include "graft/features/feed.h"
#include "graft/models/loading.h"
#include "tests/fixtures.h"
#include "tests/models/cases.h"

namespace graft::models {
namespace {

using namespace tests;

struct LoraLaws : testing::TestWithParam<std::string> {
  void SetUp() override { at::set_num_threads(1); }
  Tensor logits(Model& model) {
    const torch::NoGradGuard no_grad;
    model.eval();
    std::map<std::string, Activations> ends;
    for (const auto& chain : model.chains)
      ends[chain.name] = model.forward(chain.name, 0, chain.blocks.size(), c.inputs->batch(chain.name, {0, 1, 2, 3}),
                                       model.head->reads());
    return model.head->forward(ends).at("logits");
  }
  /// As if the adapters had learned something.
  void learn(Model& model) {
    const torch::NoGradGuard no_grad;
    for (auto& item : model.parameters_by_key())
      if (item.key().ends_with("lora_B")) item.value().normal_(0, 0.2);
  }
  Case c{GetParam()};
  Model& model = *c.model;
  const LoraOptions options{.rank = 3, .alpha = 6};
};

TEST_P(LoraLaws, FreshAdaptersChangeNothing) {
  const auto before = logits(model);
  EXPECT_GE(attach_lora(model, options, 1).size(), 3u);
  EXPECT_TRUE(same(logits(model), before));
}

TEST_P(LoraLaws, OnlyAdaptersAndTheHeadLearn) {
  attach_lora(model, options, 1);
  std::set<std::string> units{"head"};
  for (const auto& chain : model.chains)
    for (const auto& block : chain.blocks) units.insert(block.groups.begin(), block.groups.end());
  EXPECT_EQ(units.size(), 4u) << "three layers and the head; the embeddings rest";
  const features::Feed feed(model, *c.inputs), validation_feed(model, *c.validation_inputs);
  const auto stream = c.stream(feed), validation = c.validation(validation_feed);
  const auto before = tensors_of(model);
  train::PhasePlan plan{.stage = "finetune", .name = "lora", .trainable = units, .epochs = 2, .metric = "loss"};
  for (const auto& unit : units) plan.learning_rates[unit] = 0.05;
  train::Phase phase(model, plan, {.batch_size = 4}, stream, validation, 3);
  phase.run({});
  int64_t moved = 0;
  for (const auto& [key, value] : tensors_of(model)) {
    const bool is_adapter = key.find(".adapter.") != std::string::npos, is_head = model.group_of(key) == "head";
    if (!same(value, before.at(key))) ++moved;
    EXPECT_TRUE(is_adapter || is_head || same(value, before.at(key))) << key << " is frozen";
    if (is_adapter) {
      EXPECT_FALSE(same(value, before.at(key))) << key << " learns";
    }
  }
  EXPECT_GT(moved, 6);
}

TEST_P(LoraLaws, TheBoundaryIsTheFirstBlockWithALearningAdapter) {
  attach_lora(model, options, 1);
  model.unfreeze_only({"head", "layer 2 adapters"});
  EXPECT_EQ(model.boundary("text"), 3);
  model.unfreeze_only({"head", "layer 0 adapters"});
  EXPECT_EQ(model.boundary("text"), 1);
}

TEST_P(LoraLaws, MergedItComputesWhatItDidApplied) {
  attach_lora(model, options, 1);
  const auto untouched = logits(model);
  learn(model);
  const auto applied = logits(model);
  EXPECT_GT(relative_difference(applied, untouched), 1e-3);
  merge_lora(model);
  EXPECT_LE(relative_difference(logits(model), applied), 1e-5);
  // The whole model without adapters, loaded afresh.
  Case other(GetParam(), 2);
  const auto tensors = to_views(without_adapters(model));
  load_weights(*other.model, *c.architecture, tensors, "merged", false);
  EXPECT_LE(relative_difference(logits(*other.model), applied), 1e-5);
}

TEST_P(LoraLaws, ThroughPeftsNamesItIsTheSame) {
  Case base(GetParam());
  attach_lora(model, options, 1);
  learn(model);
  {
    const torch::NoGradGuard no_grad;
    for (auto& item : model.head->named_parameters()) item.value().add_(0.1);
  }
  const auto config = peft_config(model, options, {c.task, 3}, "base");
  const auto taken = apply_peft(*base.model, config, to_views(peft_tensors(model)), "", "adapter");
  EXPECT_EQ(taken.size(), model.head->named_parameters().size());
  EXPECT_LE(relative_difference(logits(*base.model), logits(model)), 1e-5);
}

INSTANTIATE_TEST_SUITE_P(All, LoraLaws,
                         testing::Values("llama_classification", "llama_causal_lm", "gpt_bigcode_classification",
                                         "starcoder2_tokens", "bert_classification", "roberta_tokens"),
                         [](const auto& info) { return info.param; });

TEST(Lora, AHeadThatRestsLearnsItsNormsAlone) {
  Case c("llama_causal_lm");
  attach_lora(*c.model, {.rank = 2, .head = "freeze"}, 1);
  c.model->unfreeze_only(c.model->all_groups());
  std::vector<std::string> learning;
  for (const auto& item : c.model->parameters_by_key())
    if (item.value().requires_grad() && item.key().find(".adapter.") == std::string::npos)
      learning.push_back(item.key());
  EXPECT_EQ(learning, std::vector<std::string>{"model.norm.weight"});
  EXPECT_EQ(peft_config(*c.model, {.rank = 2}, {"causal_lm"}, "base")["modules_to_save"],
            std::vector<std::string>{"model.norm"});
  EXPECT_FALSE(peft_tensors(*c.model).contains("base_model.model.lm_head.weight"));
  EXPECT_TRUE(without_adapters(*c.model).contains("lm_head.weight")) << "a whole model has its head";
}

TEST(Lora, ALanguageHeadMayHaveAnAdapterToo) {
  Case c("llama_causal_lm"), base("llama_causal_lm"), merged("llama_causal_lm");
  auto& model = *c.model;
  const LoraOptions options{.rank = 2, .alpha = 4, .targets = {"lm_head", "q_proj"}};
  const auto chosen = attach_lora(model, options, 1);
  EXPECT_EQ(chosen.front(), "lm_head");
  const auto rests = tensors_of(model);
  const features::Feed feed(model, *c.inputs), validation_feed(model, *c.validation_inputs);
  const auto stream = c.stream(feed), validation = c.validation(validation_feed);
  train::PhasePlan plan{.stage = "finetune", .name = "lora", .trainable = {"head"}, .epochs = 2, .metric = "loss"};
  plan.learning_rates["head"] = 0.05;
  train::Phase(model, plan, {.batch_size = 4}, stream, validation, 3).run({});
  const auto now = tensors_of(model);
  EXPECT_TRUE(same(now.at("lm_head.weight"), rests.at("lm_head.weight")));
  EXPECT_FALSE(same(now.at("lm_head.adapter.lora_B"), rests.at("lm_head.adapter.lora_B")));
  EXPECT_FALSE(same(now.at("model.norm.weight"), rests.at("model.norm.weight"))) << "the head's norm learns beside it";

  // In chunks, with labels, the loss is that of the layer's own output.
  const auto outputs_of = [&](Model& m, bool labels) {
    const torch::NoGradGuard no_grad;
    m.eval();
    auto x = c.inputs->batch("text", {0, 1, 2});
    const auto ids = x.kept.at("input_ids");
    auto end = m.forward("text", 0, static_cast<int64_t>(m.chains[0].blocks.size()), std::move(x), m.head->reads());
    if (labels) end.kept["labels"] = ids;
    return std::pair{m.head->forward({{"text", end}}), ids.values};
  };
  const auto [plain, ids] = outputs_of(model, false);
  const auto [chunked, same_ids] = outputs_of(model, true);
  const auto expected = at::cross_entropy_loss(plain.at("logits"), ids, {}, at::Reduction::Sum);
  EXPECT_NEAR(chunked.at("loss").item<double>(), expected.item<double>(), 1e-5 * expected.item<double>());

  EXPECT_TRUE(peft_tensors(model).contains("base_model.model.lm_head.lora_A.weight"));
  EXPECT_EQ(peft_config(model, options, {"causal_lm"}, "base")["modules_to_save"],
            std::vector<std::string>{"model.norm"});
  apply_peft(*base.model, peft_config(model, options, {"causal_lm"}, "base"), to_views(peft_tensors(model)), "",
             "adapter");
  EXPECT_LE(relative_difference(outputs_of(*base.model, false).first.at("logits"), plain.at("logits")), 1e-5);
  {
    const WithoutAdapters off(model);
    EXPECT_GT(relative_difference(outputs_of(model, false).first.at("logits"), plain.at("logits")), 1e-3);
  }
  merge_lora(model);
  EXPECT_LE(relative_difference(outputs_of(model, false).first.at("logits"), plain.at("logits")), 1e-5);
}

TEST(Lora, AFreshHeadLearnsWhateverTheRecipeSays) {
  Case c("llama_classification");
  attach_lora(*c.model, {.rank = 2, .head = "freeze"}, 1, {"score.weight"});
  c.model->unfreeze_only(c.model->all_groups());
  EXPECT_TRUE(c.model->parameters_by_key()["score.weight"].requires_grad());
  EXPECT_TRUE(peft_tensors(*c.model).contains("base_model.model.score.weight"));
}

TEST(Lora, TargetsAreTheEndsOfPaths) {
  Case c("llama_classification");
  EXPECT_EQ(attach_lora(*c.model, {.rank = 2, .targets = {"q_proj", "model.layers.1.mlp.up_proj"}}, 1),
            (std::vector<std::string>{"model.layers.0.self_attn.q_proj", "model.layers.1.mlp.up_proj",
                                      "model.layers.1.self_attn.q_proj", "model.layers.2.self_attn.q_proj"}));
}

TEST(Lora, ATargetThatMatchesNothingListsWhatExists) {
  Case c("llama_classification");
  EXPECT_EQ(message_of([&] {
              attach_lora(*c.model, {.rank = 2, .targets = {"q_proj", "query"}}, 1);
            }),
            "lora.targets: no linear layer is named `query`; there are down_proj, gate_proj, k_proj, o_proj, q_proj, "
            "up_proj, v_proj (or all-linear).");
}

TEST(Lora, AnAdapterOfAnotherKindOrModelIsASentence) {
  Case c("llama_classification");
  EXPECT_NE(message_of([&] {
              apply_peft(*c.model, {{"peft_type", "IA3"}}, {}, "", "folder");
            }).find("only LoRA"),
            std::string::npos);
  Case other("starcoder2_classification");
  attach_lora(*other.model, {.rank = 2}, 1);
  const auto config = peft_config(*other.model, {.rank = 2}, {"classification", 3}, "base");
  const auto message =
      message_of([&] { apply_peft(*c.model, config, to_views(peft_tensors(*other.model)), "", "folder"); });
  EXPECT_NE(message.find("fit no layer of its base model"), std::string::npos) << message;
}

}  // namespace
}  // namespace graft::models
