// What a phase holds, by hand, and which change is proposed when it is too much.
#include "graft/run/memory.h"

#include <gtest/gtest.h>

namespace graft::run {
namespace {

/// Two layers of 1000 matrix elements and 10 others, embeddings and a head; a step takes 100 bytes a row.
MemoryShape toy() {
  MemoryShape shape;
  shape.groups = {{"embeddings", {2000, 0}}, {"layer 0", {1000, 10}}, {"layer 1", {1000, 10}}, {"head", {100, 10}}};
  shape.adapters = {{"embeddings", 0}, {"layer 0", 20}, {"layer 1", 20}};
  shape.adapter_rank = 16;
  shape.mapped = true;
  shape.process = 500;
  const auto phase = [](const char* name, std::set<std::string> trainable, int64_t units) {
    return PhaseShape{.phase = name,
                      .trainable = std::move(trainable),
                      .units = units,
                      .rows = 64,
                      .longest = 8,
                      .step = {0, 100},
                      .checkpointed = {0, 60}};
  };
  shape.phases = {phase("head", {"head"}, 0), phase("unfreeze 1", {"head", "layer 1"}, 1),
                  phase("unfreeze 2", {"head", "layer 1", "layer 0"}, 2),
                  phase("full", {"head", "layer 1", "layer 0", "embeddings"}, 2)};
  return shape;
}

TEST(Memory, OfAPhaseByHand) {
  const auto shape = toy();
  const auto b = bytes_of(shape, shape.phases[1], {});
  EXPECT_EQ(b.weights, 4 * 4130);
  EXPECT_EQ(b.mapped, 4 * 3010) << "what is frozen stays the source's file";
  EXPECT_EQ(b.gradients, 4 * 1120);
  EXPECT_EQ(b.best, 4 * 1120);
  EXPECT_EQ(b.optimizer, 8 * 1120);
  EXPECT_EQ(b.activations, 6400);
  EXPECT_EQ(b.other, 500);
  EXPECT_EQ(b.total(), 4 * 4130 + 16 * 1120 + 6400 + 500);
}

TEST(Memory, WeightsInBfloat16ByHand) {
  const auto shape = toy();
  const auto masters = bytes_of(shape, shape.phases[1], {.weights = "bfloat16"}),
             stochastic = bytes_of(shape, shape.phases[1], {.weights = "bfloat16_stochastic"});
  EXPECT_EQ(masters.weights, 2 * 4100 + 4 * 30);
  EXPECT_EQ(masters.mapped, 0) << "the file is in float32";
  EXPECT_EQ(masters.gradients, 2 * 1100 + 4 * 20);
  EXPECT_EQ(masters.optimizer, 8 * 1120 + 4 * 1100);
  EXPECT_EQ(stochastic.optimizer, 8 * 1120);
}

TEST(Memory, SmallPartsCheckpointsAdaptersAndSecondModels) {
  auto shape = toy();
  auto phase = shape.phases[1];
  EXPECT_EQ(bytes_of(shape, phase, {.micro_batch_tokens = 16}).activations, 1600);
  EXPECT_EQ(bytes_of(shape, phase, {.micro_batch_tokens = 1}).activations, 800) << "an example is not cut";
  EXPECT_EQ(bytes_of(shape, phase, {.checkpointing = true}).activations, 3840);
  phase.evaluation = {50, 1000};
  phase.evaluation_rows = 20;
  EXPECT_EQ(bytes_of(shape, phase, {}).activations, 20050) << "the larger of both";
  const auto adapters = bytes_of(shape, shape.phases[1], {.adapters = true});
  EXPECT_EQ(adapters.gradients, 4 * (110 + 20));
  EXPECT_EQ(adapters.weights, 4 * (4130 + 20));
  phase = shape.phases[0];
  phase.second_model = true;
  EXPECT_EQ(bytes_of(shape, phase, {}).other, 500 + 4 * 4130);
  phase.for_report = true;
  EXPECT_EQ(bytes_of(shape, phase, {}).other, 500) << "a probe that is the file";
  shape.mapped = false;
  EXPECT_EQ(bytes_of(shape, phase, {}).other, 500 + 4 * 4130);
  shape.anchors = 2;
  EXPECT_EQ(bytes_of(shape, shape.phases[0], {}).other, 500 + 8 * 4130);
}

TEST(Memory, TheFirstChangeThatMakesItFitIsProposed) {
  const auto shape = toy();
  const auto need = largest_need(shape, {});
  EXPECT_EQ(need.phase, "full");
  EXPECT_EQ(need.bytes, 20 * 4130 + 6400 + 500);
  const auto settings = [&](int64_t available) { return remedy(shape, {}, available).settings; };
  using Settings = std::vector<std::string>;
  EXPECT_EQ(settings(need.bytes - 1), (Settings{"train.activation_checkpointing=true"}));
  EXPECT_EQ(settings(need.bytes - 5000), (Settings{"train.micro_batch_tokens=8"}));
  EXPECT_EQ(settings(need.bytes - 20000), (Settings{"train.weights=\"bfloat16_stochastic\""}));
  EXPECT_EQ(settings(30000), (Settings{"lora.rank=16"}));
  auto no_adapters = shape;
  no_adapters.adapters.clear();
  EXPECT_EQ(remedy(no_adapters, {}, 42000).settings,
            (Settings{"finetune.unfreeze.max_units=1 finetune.full.when=\"never\""}));
  const auto several = remedy(shape, {}, 14000);
  EXPECT_GT(several.settings.size(), 1u);
  EXPECT_LE(several.need.bytes, 14000);
  EXPECT_TRUE(settings(1000).empty());
}

TEST(Memory, TheVerdictIsASentence) {
  const auto shape = toy();
  EXPECT_EQ(memory_verdict(shape, {}, 1'000'000'000)["sentence"],
            "It fits: at most 0.00 GB in phase full, and 1.00 GB can be had.");
  auto large = shape;
  for (auto& item : large.groups) item.second.matrices *= 1'000'000;
  const auto verdict = memory_verdict(large, {}, 60'000'000'000);
  EXPECT_FALSE(verdict["fits"]);
  EXPECT_EQ(verdict["sentence"],
            "It does not fit: phase full needs 82.00 GB, and 60.00 GB can be had. With "
            "train.weights=\"bfloat16_stochastic\" it needs 57.40 GB and fits.");
  EXPECT_EQ(memory_verdict(large, {}, 1000)["settings"].size(), 0u);
  EXPECT_NE(memory_verdict(large, {}, 1000)["sentence"].get<std::string>().find("take a smaller source"),
            std::string::npos);
}

}  // namespace
}  // namespace graft::run
