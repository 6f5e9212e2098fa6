// Weights kept in bfloat16: the optimizer with masters and with stochastic rounding, layers that widen them, training
// beside float32, and resumption to the bit.
#include <gtest/gtest.h>

#include "graft/core/error.h"
#include "graft/io/safetensors.h"
#include "graft/models/loading.h"
#include "graft/models/weight_type.h"
#include "graft/nn/layers.h"
#include "tests/fixtures.h"
#include "tests/models/cases.h"
#include "tests/train/streams.h"

namespace graft::train {
namespace {

using namespace tests;
using torch::kBFloat16;
using torch::kFloat32;

Tensor half(const Tensor& values) { return values.to(kBFloat16, false, /*copy=*/true).requires_grad_(); }

// ---- the optimizer

TEST(HalfWeights, MastersGatherWhatBfloat16CannotHold) {
  torch::manual_seed(1);
  const auto start = torch::randn({64}).to(kBFloat16);
  const auto exact = start.to(kFloat32).requires_grad_(), kept = half(start);
  AdamW one({}), other({});
  one.add("p", exact, 1e-4, 0.01);
  other.add("p", kept, 1e-4, 0.01);
  for (int step = 0; step < 60; ++step) {
    const auto gradient = torch::randn({64}).to(kBFloat16);
    exact.mutable_grad() = gradient.to(kFloat32);
    kept.mutable_grad() = gradient.clone();
    one.step(1);
    other.step(1);
    ASSERT_TRUE(same(other.state().at("p.master"), exact.detach())) << step;
    ASSERT_TRUE(same(kept.detach(), exact.detach().to(kBFloat16))) << step;
  }
  EXPECT_FALSE(same(kept.detach(), start)) << "steps below what bfloat16 can tell apart add up";
}

TEST(HalfWeights, RoundingByChanceIsExactInTheMeanAndAFunctionOfTheSeed) {
  constexpr int64_t n = 40001;
  const auto stepped = [&](double value, uint64_t seed) {
    const auto p = half(torch::full({n}, value));
    AdamW optimizer({.stochastic = true});
    optimizer.add("p", p, 0.001, 0);
    p.mutable_grad() = torch::full({n}, value > 0 ? 1.0 : -1.0, kBFloat16);
    optimizer.step(1, seed);  // Adam's first step is the learning rate whatever the gradient
    EXPECT_FALSE(optimizer.state().contains("p.master"));
    return p.detach().to(kFloat32);
  };
  // Below 1 bfloat16 has steps of 2^-8. Five standard deviations of the mean of n such roundings:
  const double step = 1.0 / 256, share = 0.001 / step, bound = 5 * step * std::sqrt(share * (1 - share) / n);
  for (const double value : {1.0, -1.0}) {
    const auto p = stepped(value, 7);
    EXPECT_NEAR(p.mean(torch::kFloat64).item<double>(), value * 0.999, bound);
    EXPECT_TRUE((p.abs().eq(1) | p.abs().eq(1 - step)).all().item<bool>()) << "to the nearest below or above";
    EXPECT_TRUE(same(p, stepped(value, 7)));
    EXPECT_FALSE(same(p, stepped(value, 8)));
  }
}

TEST(HalfWeights, WhatNeedsNoRoundingStays) {
  torch::manual_seed(1);
  const auto p = half(torch::randn({1000}));
  const auto before = p.detach().clone();
  AdamW optimizer({.stochastic = true});
  optimizer.add("p", p, 0, 0);
  p.mutable_grad() = torch::ones({1000}, kBFloat16);
  optimizer.step(1, 3);
  EXPECT_TRUE(same(p.detach(), before));
}

TEST(HalfWeights, ACheckpointWithoutTheMastersIsASentence) {
  const auto p = half(torch::ones({4}));
  AdamW optimizer({});
  optimizer.add("p", p, 0.1, 0);
  auto state = optimizer.state();
  EXPECT_NO_THROW(optimizer.load_state(state));
  state.erase("p.master");
  const auto message = message_of([&] { optimizer.load_state(state); });
  EXPECT_TRUE(message.starts_with("the checkpoint does not fit the run: the optimizer's p.master")) << message;
}

// ---- layers

TEST(HalfWeights, ALinearLayerComputesInFloat32AndRoundsItsGradientOnce) {
  torch::manual_seed(1);
  nn::Linear layer(6, 5);
  const auto x = torch::randn({9, 6}).requires_grad_(), y = x.detach().clone().requires_grad_();
  layer->weight.set_data(layer->weight.detach().to(kBFloat16));
  const auto weight = layer->weight.detach().to(kFloat32).requires_grad_(),
             bias = layer->bias.detach().clone().requires_grad_();
  const auto cotangent = torch::randn({9, 5});
  const auto found = layer(x), expected = torch::linear(y, weight, bias);
  EXPECT_EQ(found.scalar_type(), kFloat32);
  EXPECT_LE(relative_difference(found, expected), 1e-6);
  (found * cotangent).sum().backward();
  (expected * cotangent).sum().backward();
  EXPECT_LE(relative_difference(x.grad(), y.grad()), 1e-6);
  EXPECT_LE(relative_difference(layer->bias.grad(), bias.grad()), 1e-6);
  EXPECT_EQ(layer->weight.grad().scalar_type(), kBFloat16);
  EXPECT_LE(relative_difference(layer->weight.grad().to(kFloat32), weight.grad()), 1.0 / 256);
}

TEST(HalfWeights, AnEmbeddingSumsItsGradientsInFloat32) {
  nn::Embedding table(3, 2, 0);
  table->weight.set_data(table->weight.detach().to(kBFloat16));
  const auto ids = torch::ones({1001}, torch::kInt64);
  ids[0] = 0;
  const auto rows = table(ids);
  EXPECT_EQ(rows.scalar_type(), kFloat32);
  EXPECT_TRUE(same(rows[5].detach(), table->weight.detach()[1].to(kFloat32)));
  rows.sum().backward();
  // Summed in bfloat16 it would stop at 256, from where on 1 is less than it can tell apart.
  EXPECT_EQ(table->weight.grad()[1][0].item<float>(), 1000);
  EXPECT_EQ(table->weight.grad()[0][0].item<float>(), 0) << "the padding row learns nothing";
}

TEST(HalfWeights, NormsAndBiasesStayInFloat32) {
  Case c("bert_masked_lm");
  models::keep_weights_as(*c.model, kBFloat16);
  EXPECT_EQ(models::weight_type(*c.model), kBFloat16);
  for (const auto& item : c.model->parameters_by_key())
    EXPECT_EQ(item.value().scalar_type(), item.value().dim() == 2 ? kBFloat16 : kFloat32) << item.key();
}

TEST(HalfWeights, AConvolutionalNetworkIsRefused) {
  Case c("resnet_classification");
  const auto message = message_of([&] { models::keep_weights_as(*c.model, kBFloat16); });
  EXPECT_TRUE(message.starts_with("train.weights: ")) << message;
  EXPECT_NE(message.find("Leave train.weights at float32."), std::string::npos) << message;
}

// ---- phases

PhasePlan plan_of(const models::Model& model, int64_t epochs) {
  PhasePlan plan{
      .stage = "finetune", .name = "all", .trainable = all_groups(model), .epochs = epochs, .metric = "loss"};
  for (const auto& group : plan.trainable) plan.learning_rates[group] = 3e-3;
  return plan;
}

class HalfPhase : public testing::TestWithParam<std::string> {};

TEST_P(HalfPhase, FollowsFloat32) {
  at::set_num_threads(1);
  const auto losses = [&](const std::string& weights) {
    Case c(GetParam(), 1, 0.0);
    models::keep_weights_as(*c.model, models::weight_type_named(weights));
    const features::Feed feed(*c.model, *c.inputs), validation_feed(*c.model, *c.validation_inputs);
    const auto train = c.stream(feed), validation = c.validation(validation_feed);
    Phase phase(*c.model, plan_of(*c.model, 8), {.batch_size = 4, .weights = weights}, train, validation, 1);
    phase.run({});
    return std::pair{phase.state().history.front()["loss"].get<double>(),
                     phase.state().history.back()["loss"].get<double>()};
  };
  const auto [first, exact] = losses("float32");
  ASSERT_LT(exact, first);
  EXPECT_NEAR(losses("bfloat16").second, exact, 0.1 * (first - exact));
  EXPECT_NEAR(losses("bfloat16_stochastic").second, exact, 0.25 * (first - exact));
}

TEST_P(HalfPhase, ResumedFromACheckpointEndsWithTheSameBytes) {
  at::set_num_threads(1);
  const Scratch scratch;
  for (const std::string weights : {"bfloat16", "bfloat16_stochastic"}) {
    const TrainOptions options{.batch_size = 4, .micro_batch_tokens = 16, .weights = weights};
    const auto run = [&](int64_t stop_after) {
      Json state;
      if (stop_after >= 0) {
        Case c(GetParam());
        models::keep_weights_as(*c.model, kBFloat16);
        const features::Feed feed(*c.model, *c.inputs), validation_feed(*c.model, *c.validation_inputs);
        const auto stream = c.stream(feed), validation = c.validation(validation_feed);
        const Stopping stopping(stream, stop_after);
        Phase phase(*c.model, plan_of(*c.model, 3), options, stopping, validation, 3);
        EXPECT_THROW(phase.run({}), Interrupted);
        state = Json::parse(phase.state_json().dump());
        io::write_safetensors(scratch / "state.safetensors", models::to_views(phase.state_tensors()));
      }
      Case c(GetParam());
      models::keep_weights_as(*c.model, kBFloat16);
      const features::Feed feed(*c.model, *c.inputs), validation_feed(*c.model, *c.validation_inputs);
      const auto stream = c.stream(feed), validation = c.validation(validation_feed);
      Phase phase(*c.model, plan_of(*c.model, 3), options, stream, validation, 3);
      if (stop_after >= 0) {
        std::map<std::string, Tensor> tensors;
        for (const auto& [name, view] : io::read_safetensors(scratch / "state.safetensors").tensors)
          tensors[name] = models::to_tensor(name, view);
        phase.resume(state, tensors);
      }
      phase.run({});
      auto all = tensors_of(*c.model);
      for (const auto& [key, value] : phase.state_tensors()) all[key] = value.clone();
      return all;
    };
    const auto unbroken = run(-1);
    for (const int64_t stop_after : {0, 4, 7})
      for (const auto& [key, value] : run(stop_after))
        EXPECT_TRUE(same(value, unbroken.at(key))) << weights << " " << key << " after " << stop_after;
  }
}

INSTANTIATE_TEST_SUITE_P(Models, HalfPhase,
                         testing::Values("bert_classification", "deberta-v2_classification", "llama_causal_lm"),
                         [](const auto& info) { return test_name(info.param); });

}  // namespace
}  // namespace graft::train
