// Batches, accumulation, what a phase does with numbers that are not finite, and which weights it keeps.
#include "graft/train/phase.h"

#include <gtest/gtest.h>
#include <torch/csrc/autograd/custom_function.h>

#include <chrono>
#include <cmath>
#include <thread>

#include "graft/core/error.h"
#include "graft/models/lora.h"
#include "graft/train/batches.h"
#include "tests/fixtures.h"
#include "tests/models/cases.h"
#include "tests/train/streams.h"

namespace graft::train {
namespace {

using namespace tests;

/// Examples of given costs, for the batches alone.
struct Costs final : Stream {
  explicit Costs(std::vector<int64_t> costs) : costs(std::move(costs)) {}
  int64_t size() const override { return static_cast<int64_t>(costs.size()); }
  int64_t rows(int64_t example) const override { return costs[example]; }
  std::map<std::string, Activations> enter(const std::vector<int64_t>&, uint64_t) const override { return {}; }
  double weight(const std::vector<int64_t>&, uint64_t) const override { return 0; }
  Tensor loss_sum(const Outputs&, const std::vector<int64_t>&, uint64_t) const override { return {}; }
  Predictions predictions() const override { return {}; }
  void collect(const Outputs&, const std::vector<int64_t>&, Predictions&) const override {}
  std::vector<int64_t> costs;
};

std::vector<int64_t> flat(const std::vector<std::vector<int64_t>>& batches) {
  std::vector<int64_t> all;
  for (const auto& batch : batches) all.insert(all.end(), batch.begin(), batch.end());
  return all;
}

TEST(Batches, AnEpochHasEachExampleOnceInBatchesOfLikeCost) {
  std::vector<int64_t> costs, expected;
  for (int64_t i = 0; i < 1003; ++i) costs.push_back((i * 7919) % 97), expected.push_back(i);
  const Costs stream(costs);
  const auto batches = epoch_batches(stream, 8, 5);
  EXPECT_EQ(epoch_batches(stream, 8, 5), batches);
  EXPECT_NE(epoch_batches(stream, 8, 6), batches);
  auto all = flat(batches);
  EXPECT_NE(all, expected);
  std::sort(all.begin(), all.end());
  EXPECT_EQ(all, expected);
  EXPECT_EQ(batches.size(), 126u);
  int64_t spread = 0, ascending = 0;
  for (size_t b = 0; b < batches.size(); ++b) {
    EXPECT_LE(batches[b].size(), 8u);
    for (size_t i = 1; i < batches[b].size(); ++i) EXPECT_LE(costs[batches[b][i - 1]], costs[batches[b][i]]);
    spread += costs[batches[b].back()] - costs[batches[b].front()];
    ascending += b > 0 && costs[batches[b].front()] >= costs[batches[b - 1].front()];
  }
  EXPECT_LT(spread / 126.0, 8) << "of 97; at random it would be about 75";
  EXPECT_GT(ascending, 30) << "the batches themselves are in random order";
  EXPECT_LT(ascending, 96);
}

TEST(Batches, PartsStayWithinTheRowsAndInOrder) {
  const Costs stream({3, 4, 5, 20, 1, 1});
  using Parts = std::vector<std::vector<int64_t>>;
  EXPECT_EQ(micro_batches(stream, {0, 1, 2, 3, 4}, 9), (Parts{{0, 1}, {2}, {3}, {4}}));
  EXPECT_EQ(micro_batches(stream, {0, 1, 2}, 12), (Parts{{0, 1, 2}}));
  EXPECT_EQ(batches_by_rows(stream, 9), (Parts{{4, 5, 0, 1}, {2}, {3}}));
}

// DESIGN, exactness: gradients equal the large batch's within 1e-6, dropout off.
class Accumulation : public testing::TestWithParam<std::string> {};

TEST_P(Accumulation, GradientsOfPartsEqualThoseOfTheBatch) {
  at::set_num_threads(1);
  Case c(GetParam(), 1, 0.0);
  const features::Feed feed(*c.model, *c.inputs);
  const auto stream = c.stream(feed);
  const auto moments = [&](int64_t rows) {
    Case fresh(GetParam(), 1, 0.0);
    const features::Feed feed(*fresh.model, *fresh.inputs), validation_feed(*fresh.model, *fresh.validation_inputs);
    const auto train = fresh.stream(feed), validation = fresh.validation(validation_feed);
    PhasePlan plan{.stage = "finetune", .name = "parts", .trainable = all_groups(*fresh.model), .metric = "loss"};
    for (const auto& group : plan.trainable) plan.learning_rates[group] = 1e-3;
    plan.adamw.beta1 = 0;  // one step of all 12 examples, unclipped: exp_avg is the gradient
    Phase phase(*fresh.model, plan, {.batch_size = 12, .micro_batch_tokens = rows, .max_gradient_norm = 0}, train,
                validation, 1);
    phase.run({});
    std::map<std::string, Tensor> gradients;
    for (const auto& [key, value] : phase.state_tensors())
      if (key.ends_with(".exp_avg")) gradients[key] = value;
    return std::pair{gradients, phase.state().history[0]["loss"].get<double>()};
  };
  const auto [whole, loss] = moments(1 << 20);
  const auto [parts, loss_of_parts] = moments(13);
  EXPECT_NEAR(loss_of_parts, loss, 1e-6 * std::abs(loss));
  double largest = 0;
  for (const auto& item : whole) largest = std::max(largest, item.second.abs().max().item<double>());
  ASSERT_GT(largest, 0);
  double squared = 0, off = 0;
  for (const auto& [key, gradient] : whole) {
    // A single value may be off by float32's own rounding, which is another on each processor.
    EXPECT_LE((parts.at(key) - gradient).abs().max().item<double>(), 2e-6 * largest) << key;
    squared += gradient.to(torch::kFloat64).square().sum().item<double>();
    off += (parts.at(key) - gradient).to(torch::kFloat64).square().sum().item<double>();
  }
  EXPECT_LE(std::sqrt(off), 1e-6 * std::sqrt(squared));
}

INSTANTIATE_TEST_SUITE_P(Tasks, Accumulation,
                         testing::Values("bert_classification", "bert_tokens", "roberta_masked_lm", "two_towers",
                                         "cross_attention"),
                         [](const auto& info) { return info.param; });

// Chen et al. 2016: the same gradients, dropout included, for less memory.
class ActivationCheckpointing : public testing::TestWithParam<std::string> {};

struct TrainedCase {
  std::map<std::string, Tensor> weights, gradients;
};

/// "..._adapters": the case of that name, which learns through adapters.
TrainedCase trained(const std::string& name, TrainOptions options, bool checkpointed) {
  at::set_num_threads(1);
  const std::string adapters = "_adapters";
  const bool adapted = name.ends_with(adapters);
  Case c(adapted ? name.substr(0, name.size() - adapters.size()) : name);
  if (adapted) models::attach_lora(*c.model, {.rank = 3, .dropout = 0.1}, 1);
  const features::Feed feed(*c.model, *c.inputs), validation_feed(*c.model, *c.validation_inputs);
  const auto train = c.stream(feed), validation = c.validation(validation_feed);
  PhasePlan plan{.stage = "finetune", .name = "all", .trainable = all_groups(*c.model), .epochs = 1, .metric = "loss"};
  for (const auto& group : plan.trainable) plan.learning_rates[group] = 1e-2;
  options.activation_checkpointing = checkpointed;
  Phase phase(*c.model, plan, options, train, validation, 1);
  phase.run({});
  TrainedCase result{tensors_of(*c.model)};
  for (const auto& [key, value] : phase.state_tensors())
    if (key.ends_with(".exp_avg")) result.gradients[key] = value * 10;
  return result;
}

TEST_P(ActivationCheckpointing, GivesTheSameGradients) {
  // One step of all 12 examples, unclipped, so that exp_avg is a tenth of the gradient.
  const TrainOptions options{.batch_size = 12, .max_gradient_norm = 0};
  const auto plain = trained(GetParam(), options, false), checkpointed = trained(GetParam(), options, true);
  double largest = 0;
  for (const auto& item : plain.gradients) largest = std::max(largest, item.second.abs().max().item<double>());
  ASSERT_GT(largest, 0);
  for (const auto& [key, value] : plain.gradients)
    EXPECT_LE((checkpointed.gradients.at(key) - value).abs().max().item<double>(), 1e-6 * largest) << key;
}

TEST_P(ActivationCheckpointing, OfAStraightChainEndsWithTheSameWeightsToTheBit) {
  // A slot or a table that several blocks read gets its gradients in another order, which rounds otherwise.
  if (GetParam() == "cross_attention" || GetParam() == "skips" || GetParam() == "table") return;
  const auto plain = trained(GetParam(), {.batch_size = 5}, false),
             checkpointed = trained(GetParam(), {.batch_size = 5}, true);
  for (const auto& [key, value] : plain.weights) EXPECT_TRUE(same(checkpointed.weights.at(key), value)) << key;
}

INSTANTIATE_TEST_SUITE_P(Chains, ActivationCheckpointing,
                         testing::Values("bert_classification", "bert_tokens", "roberta_masked_lm", "two_towers",
                                         "cross_attention", "skips", "tied", "table", "llama_causal_lm",
                                         "gpt_bigcode_causal_lm", "starcoder2_causal_lm", "llama_classification",
                                         "llama_causal_lm_adapters", "gpt_bigcode_classification_adapters"),
                         [](const auto& info) { return info.param; });

TEST(Autocast, ABfloat16StepIsNearTheFloat32Step) {
  at::set_num_threads(1);
  const auto loss_with = [](const std::string& precision) {
    Case c("bert_classification", 1, 0.0);
    const features::Feed feed(*c.model, *c.inputs), validation_feed(*c.model, *c.validation_inputs);
    const auto train = c.stream(feed), validation = c.validation(validation_feed);
    PhasePlan plan{
        .stage = "finetune", .name = "all", .trainable = all_groups(*c.model), .epochs = 3, .metric = "loss"};
    for (const auto& group : plan.trainable) plan.learning_rates[group] = 1e-3;
    Phase phase(*c.model, plan, {.batch_size = 4, .precision = precision}, train, validation, 1);
    phase.run({});
    for (const auto& item : c.model->parameters_by_key())
      EXPECT_EQ(item.value().scalar_type(), torch::kFloat32) << "master weights stay in float32";
    return phase.state().history.back()["loss"].get<double>();
  };
  const double exact = loss_with("float32"), rounded = loss_with("bfloat16");
  EXPECT_NE(rounded, exact);
  EXPECT_NEAR(rounded, exact, 0.02 * exact);
}

// ---- a phase on a model whose validation metric a test decides

/// Validation whose "accuracy" is the next of a list: scores are made up so that it comes out.
struct Scripted final : Through {
  Scripted(const Stream& stream, std::vector<double> values) : Through(stream), values(std::move(values)) {}
  Predictions predictions() const override {
    Predictions p{.task = "classification", .label_names = {"0", "1"}};
    const double value = values.at(evaluations++);
    p.targets = torch::zeros({100}, torch::kInt64);
    p.scores = torch::zeros({100, 2});
    p.scores.select(1, 0).narrow(0, 0, static_cast<int64_t>(std::lround(value * 100))).fill_(1);
    p.scores.select(1, 1)
        .narrow(0, static_cast<int64_t>(std::lround(value * 100)), 100 - static_cast<int64_t>(std::lround(value * 100)))
        .fill_(1);
    return p;
  }
  void collect(const Outputs&, const std::vector<int64_t>&, Predictions&) const override {}
  std::vector<double> values;
  mutable size_t evaluations = 0;
};

struct PhaseTest : testing::Test {
  void SetUp() override { at::set_num_threads(1); }
  PhasePlan plan(int64_t epochs, int64_t patience = 0) const {
    PhasePlan p{.stage = "finetune",
                .name = "head",
                .trainable = {"head"},
                .learning_rates = {{"head", 0.01}},
                .epochs = epochs,
                .patience = patience,
                .metric = "accuracy"};
    return p;
  }
  Case c{"bert_classification"};
  features::Feed feed{*c.model, *c.inputs}, validation_feed{*c.model, *c.validation_inputs};
  Supervised train = c.stream(feed), validation = c.validation(validation_feed);
  TrainOptions options{.batch_size = 4};
};

TEST_F(PhaseTest, TheBestWeightsAreThoseOfTheBestEpoch) {
  const Scripted scripted(validation, {0.5, 0.7, 0.7, 0.6});
  Phase phase(*c.model, plan(4), options, train, scripted, 1);
  std::vector<std::map<std::string, Tensor>> after;
  std::vector<bool> best;
  phase.run({.epoch_done = [&](const Json& row) {
    after.push_back(tensors_of(*c.model));
    best.push_back(row.at("best"));
  }});
  EXPECT_EQ(best, (std::vector<bool>{true, true, false, false})) << "an equal value is no better";
  EXPECT_EQ(phase.state().best_epoch, 2);
  EXPECT_NEAR(phase.state().best, 0.7, 1e-9);
  EXPECT_FALSE(same(after[1].at("classifier.weight"), after[3].at("classifier.weight")));
  EXPECT_TRUE(same(c.model->parameters_by_key()["classifier.weight"], after[3].at("classifier.weight")));
  phase.restore_best();
  for (const auto& [key, value] : after[1]) EXPECT_TRUE(same(tensors_of(*c.model).at(key), value)) << key;
}

TEST_F(PhaseTest, TheWeightsAtTheStartCompete) {
  const auto start = tensors_of(*c.model);
  const Scripted scripted(validation, {0.5, 0.6});
  auto p = plan(2);
  p.start_metric = 0.65;
  Phase phase(*c.model, p, options, train, scripted, 1);
  phase.run({});
  EXPECT_EQ(phase.state().best_epoch, 0);
  EXPECT_FALSE(same(tensors_of(*c.model).at("classifier.weight"), start.at("classifier.weight")));
  phase.restore_best();
  for (const auto& [key, value] : start) EXPECT_TRUE(same(tensors_of(*c.model).at(key), value)) << key;
}

TEST_F(PhaseTest, StopsAfterPatienceEpochsWithoutImprovement) {
  const Scripted scripted(validation, {0.5, 0.6, 0.6, 0.58, 0.9, 0.9});
  Phase phase(*c.model, plan(6, 2), options, train, scripted, 1);
  phase.run({});
  EXPECT_EQ(phase.state().epoch, 4);
  EXPECT_EQ(phase.state().best_epoch, 2);
  EXPECT_TRUE(phase.done());
}

TEST_F(PhaseTest, SmallGainsKeepTheBestButNotThePatience) {
  const Scripted scripted(validation, {0.50, 0.51, 0.52, 0.9});
  auto p = plan(4, 2);
  p.min_improvement = 0.03;
  Phase phase(*c.model, p, options, train, scripted, 1);
  phase.run({});
  EXPECT_EQ(phase.state().epoch, 3) << "0.52 is not 0.03 above 0.50";
  EXPECT_EQ(phase.state().best_epoch, 3);
  // Small gains that add up count against the last real improvement.
  const Scripted slow(validation, {0.50, 0.52, 0.54, 0.55, 0.56});
  Phase other(*c.model, p, options, train, slow, 1);
  other.run({});
  EXPECT_EQ(other.state().epoch, 4);
}

TEST_F(PhaseTest, DoesNotStopBeforeItsLeastEpochsAndNeverWithoutPatience) {
  const Scripted scripted(validation, {0.9, 0.5, 0.5, 0.5, 0.5});
  auto p = plan(5, 1);
  p.min_epochs = 4;
  Phase phase(*c.model, p, options, train, scripted, 1);
  phase.run({});
  EXPECT_EQ(phase.state().epoch, 4);
  const Scripted again(validation, {0.9, 0.5, 0.5, 0.5, 0.5});
  Phase patient(*c.model, plan(5, 0), options, train, again, 1);
  patient.run({});
  EXPECT_EQ(patient.state().epoch, 5);
}

TEST_F(PhaseTest, ALossIsBetterWhenItIsSmaller) {
  auto p = plan(3);
  p.metric = "loss";
  Phase phase(*c.model, p, options, train, validation, 1);
  phase.run({});
  double least = INFINITY;
  int64_t epoch = 0;
  for (const auto& row : phase.state().history)
    if (row.at("loss").is_number() && row.at("validation_loss") < least)
      least = row.at("validation_loss"), epoch = row.at("epoch");
  EXPECT_EQ(phase.state().best_epoch, epoch);
  phase.restore_best();
  EXPECT_EQ(phase.predictions().loss, least);
}

// ---- terms beside the loss

/// Takes its time to come back.
struct Slow : torch::autograd::Function<Slow> {
  static Tensor forward(torch::autograd::AutogradContext*, const Tensor& x) { return x.clone(); }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext*,
                                                 torch::autograd::variable_list gradients) {
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
    return gradients;
  }
};

struct SlowTerm final : LossTerm {
  explicit SlowTerm(std::string name, bool slow) : name_(std::move(name)), slow(slow) {}
  Tensor value(const Step& step) override {
    const auto mean = step.outputs.at("logits").square().mean();
    return slow ? Slow::apply(mean) : mean;
  }
  std::string name() const override { return name_; }
  std::string name_;
  bool slow;
};

/// A loss that is slow going back, which no term must be charged with.
struct SlowLoss final : Through {
  using Through::Through;
  Tensor loss_sum(const Outputs& outputs, const std::vector<int64_t>& examples, uint64_t epoch) const override {
    return Slow::apply(Through::loss_sum(outputs, examples, epoch));
  }
};

TEST_F(PhaseTest, ATermIsChargedWithItsShareOfTheBackwardPass) {
  const SlowLoss slow(train);
  Phase phase(*c.model, plan(1), options, slow, validation, 1,
              {std::make_shared<SlowTerm>("quick", false), std::make_shared<SlowTerm>("slow", true),
               std::make_shared<SlowTerm>("quick too", false)});
  phase.run({});
  const auto& terms = phase.state().history[0].at("terms");
  EXPECT_GE(terms["slow"]["seconds"], 3 * 0.03) << "three steps";
  EXPECT_LT(terms["slow"]["seconds"], 6 * 0.03) << "with the loss's own it would be twice as much";
  for (const auto* name : {"quick", "quick too"}) EXPECT_LT(terms[name]["seconds"], 3 * 0.03) << name;
}

// ---- numbers that are not finite

/// Poisons a step: what enters the boundary, or the loss alone.
struct Poisoned final : Through {
  Poisoned(const Stream& stream, int64_t step, bool loss) : Through(stream), left(step), loss(loss) {}
  std::map<std::string, Activations> enter(const std::vector<int64_t>& examples, uint64_t epoch) const override {
    auto entering = Through::enter(examples, epoch);
    if (!loss && left <= 0) entering.begin()->second.hidden.values.view(-1)[0] = NAN;
    return entering;
  }
  double weight(const std::vector<int64_t>& examples, uint64_t epoch) const override {
    --left;
    return Through::weight(examples, epoch);
  }
  Tensor loss_sum(const Outputs& outputs, const std::vector<int64_t>& examples, uint64_t epoch) const override {
    auto sum = Through::loss_sum(outputs, examples, epoch);
    return loss && left <= 0 ? sum * NAN : sum;
  }
  mutable int64_t left;
  bool loss;
};

struct Outcome {
  std::string message;
  Kind kind = Kind::bug;
  int64_t steps = 0;
};
Outcome run(Phase& phase) {
  Outcome outcome;
  try {
    phase.run({.step_done = [&](int64_t, int64_t, int64_t, double, int64_t) { ++outcome.steps; }});
  } catch (const Error& e) {
    outcome.message = e.what();
    outcome.kind = e.kind;
  }
  return outcome;
}

TEST_F(PhaseTest, ANaNStopsWithinItsStepAndChangesNothing) {
  const auto trained = [&](int64_t epochs, const Stream& stream, Case& c, Outcome& outcome) {
    auto p = plan(epochs);
    p.trainable = {"head", "layer 1", "layer 2"};
    p.learning_rates = {{"head", 0.01}, {"layer 1", 0.01}, {"layer 2", 0.01}};
    Phase phase(*c.model, p, options, stream, validation, 1);
    outcome = run(phase);
    return tensors_of(*c.model);
  };
  Outcome outcome;
  std::map<std::string, Tensor> before;
  {
    Case fresh("bert_classification");
    features::Feed feed(*fresh.model, *fresh.inputs), validation_feed(*fresh.model, *fresh.validation_inputs);
    const auto stream = fresh.stream(feed), validation = fresh.validation(validation_feed);
    auto p = plan(2);
    p.trainable = {"head", "layer 1", "layer 2"};
    p.learning_rates = {{"head", 0.01}, {"layer 1", 0.01}, {"layer 2", 0.01}};
    Phase phase(*fresh.model, p, options, stream, validation, 1);
    phase.run({.step_done = [&](int64_t epoch, int64_t step, int64_t, double, int64_t) {
      if (epoch == 1 && step == 1) before = tensors_of(*fresh.model);
    }});
  }
  const Poisoned entering(train, 5, false);
  const auto after = trained(2, entering, c, outcome);
  EXPECT_EQ(outcome.steps, 4);
  EXPECT_EQ(outcome.kind, Kind::numerical);
  EXPECT_TRUE(outcome.message.starts_with(
      "head, epoch 2, step 2: the loss is nan. The first values that are not finite come from: text, before block 2."))
      << outcome.message;
  for (const auto& [key, value] : before)
    EXPECT_TRUE(same(after.at(key), value)) << key << ": weights are those of the step before";
}

TEST_F(PhaseTest, TheBlockWhoseValuesAreBadIsNamed) {
  const auto message_with = [&](const std::string& parameter, double value) {
    Case fresh("bert_classification");
    features::Feed feed(*fresh.model, *fresh.inputs);
    const auto stream = fresh.stream(feed);
    auto p = plan(1);
    p.trainable = all_groups(*fresh.model);
    for (const auto& group : p.trainable) p.learning_rates[group] = 0.01;
    Phase phase(*fresh.model, p, options, stream, validation, 1);
    fresh.model->parameters_by_key()[parameter].detach().fill_(value);
    return run(phase).message;
  };
  const auto named = [](const std::string& message) {
    return message.substr(message.find("come from: ") + 11,
                          message.find(". The best") - message.find("come from: ") - 11);
  };
  EXPECT_EQ(named(message_with("bert.encoder.layer.1.output.dense.weight", NAN)), "layer 1");
  EXPECT_EQ(named(message_with("classifier.weight", INFINITY)), "head");
  EXPECT_EQ(named(message_with("bert.encoder.layer.2.output.LayerNorm.weight", 3e38)), "layer 2")
      << "finite weights, infinite output";
  const Poisoned loss(train, 1, true);
  Phase phase(*c.model, plan(1), options, loss, validation, 1);
  EXPECT_EQ(named(run(phase).message), "head");
}

TEST_F(PhaseTest, ABadBlockBehindAnotherChainIsNamed) {
  Case cross("cross_attention");
  features::Feed feed(*cross.model, *cross.inputs);
  const auto stream = cross.stream(feed);
  cross.model->unfreeze_only(all_groups(*cross.model));
  cross.model->parameters_by_key()["cross.1.norm.weight"].detach().fill_(3e38);
  EXPECT_EQ(first_bad_block(*cross.model, stream, {0, 1}, 0), "text layer 1");
}

TEST_F(PhaseTest, AMetricThatIsNotFiniteIsAnErrorAndNoImprovement) {
  auto p = plan(2);
  p.metric = "auroc";  // undefined where validation holds one class
  const Scripted scripted(validation, {0.5, 0.5});
  Phase phase(*c.model, p, options, train, scripted, 1);
  const auto outcome = run(phase);
  EXPECT_EQ(outcome.kind, Kind::numerical);
  EXPECT_TRUE(outcome.message.starts_with("head, epoch 1: the validation auroc is not a finite number."))
      << outcome.message;
  EXPECT_FALSE(phase.state().has_best);
  EXPECT_EQ(phase.state().best_epoch, 0);
}

TEST_F(PhaseTest, GradientsThatAreNotFiniteWhileTheLossIsStopToo) {
  struct Root final : Through {
    using Through::Through;
    Tensor loss_sum(const Outputs& outputs, const std::vector<int64_t>& examples, uint64_t epoch) const override {
      // sqrt at 0: the value is 0, the gradient infinite times 0.
      return Through::loss_sum(outputs, examples, epoch) + (outputs.at("logits") * 0).sum().sqrt();
    }
  };
  const auto before = tensors_of(*c.model);
  const Root root(train);
  Phase phase(*c.model, plan(1), options, root, validation, 1);
  const auto outcome = run(phase);
  EXPECT_EQ(outcome.steps, 0);
  EXPECT_TRUE(outcome.message.starts_with("head, epoch 1, step 1: the gradients are not finite while the loss is."))
      << outcome.message;
  for (const auto& [key, value] : before) EXPECT_TRUE(same(tensors_of(*c.model).at(key), value)) << key;
}

TEST_F(PhaseTest, EachStepAndPartHasDropoutOfItsOwnWhichTheSeedDecides) {
  struct Drawing final : Through {
    using Through::Through;
    std::map<std::string, Activations> enter(const std::vector<int64_t>& examples, uint64_t epoch) const override {
      draws.push_back(torch::rand({1}, torch::kFloat64).item<double>());
      return Through::enter(examples, epoch);
    }
    mutable std::vector<double> draws;
  };
  const auto draws = [&](uint64_t seed, const std::string& name) {
    const Drawing drawing(train);
    auto p = plan(3);
    p.name = name;
    Phase(*c.model, p, {.batch_size = 4, .micro_batch_tokens = 8}, drawing, validation, seed).run({});
    return drawing.draws;
  };
  const auto first = draws(1, "head");
  EXPECT_GT(first.size(), 9u) << "3 epochs of 3 steps, some in parts";
  EXPECT_EQ(std::set<double>(first.begin(), first.end()).size(), first.size());
  EXPECT_EQ(draws(1, "head"), first);
  EXPECT_NE(draws(2, "head"), first);
  EXPECT_NE(draws(1, "unfreeze 1")[0], first[0]);
}

TEST_F(PhaseTest, WeightDecayIsForMatricesOnly) {
  struct Flat final : Through {
    using Through::Through;
    Tensor loss_sum(const Outputs& outputs, const std::vector<int64_t>&, uint64_t) const override {
      return (outputs.at("logits") * 0).sum();
    }
  };
  const torch::NoGradGuard no_grad;
  c.model->parameters_by_key()["classifier.bias"].fill_(1);
  const auto before = tensors_of(*c.model);
  const Flat flat(train);
  auto p = plan(1);
  p.weight_decay = 0.5;
  Phase phase(*c.model, p, options, flat, validation, 1);
  {
    const at::AutoGradMode grad(true);
    phase.run({});
  }
  const auto after = tensors_of(*c.model);
  EXPECT_LT(after.at("classifier.weight").norm().item<double>(), before.at("classifier.weight").norm().item<double>());
  EXPECT_TRUE(same(after.at("classifier.bias"), before.at("classifier.bias")));
}

TEST_F(PhaseTest, TermsAreAddedToTheLoss) {
  struct Pull final : LossTerm {
    Tensor value(const Step& step) override {
      ++calls;
      EXPECT_TRUE(step.outputs.contains("logits"));
      return 100 * step.model.parameters_by_key()["classifier.weight"].square().sum();
    }
    int64_t calls = 0;
  };
  const auto pull = std::make_shared<Pull>();
  const auto before = tensors_of(*c.model).at("classifier.weight").norm().item<double>();
  Phase phase(*c.model, plan(2), options, train, validation, 1, {pull});
  phase.run({});
  EXPECT_EQ(pull->calls, 6);
  EXPECT_LT(tensors_of(*c.model).at("classifier.weight").norm().item<double>(), before);
}

/// A term is added once a step, also when the step is computed in parts.
TEST_F(PhaseTest, ATermCountsOnceAStepHoweverManyParts) {
  struct Pull final : LossTerm {
    Tensor value(const Step& step) override { return step.model.parameters_by_key()["classifier.weight"].sum(); }
  };
  const auto gradient = [&](int64_t rows) {
    Case fresh("bert_classification", 1, 0.0);
    features::Feed feed(*fresh.model, *fresh.inputs);
    const auto stream = fresh.stream(feed);
    Phase phase(*fresh.model, plan(1), {.batch_size = 12, .micro_batch_tokens = rows, .max_gradient_norm = 0}, stream,
                validation, 1, {std::make_shared<Pull>()});
    phase.run({});
    return phase.state_tensors().at("optimizer.classifier.weight.exp_avg") * 10;
  };
  EXPECT_LE(relative_difference(gradient(5), gradient(1 << 20)), 1e-5);
}

}  // namespace
}  // namespace graft::train
