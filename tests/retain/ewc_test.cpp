// EWC against the paper's equation and autograd, its laws, and its file.
#include "graft/retain/ewc.h"

#include <gtest/gtest.h>

#include "graft/retain/fisher.h"
#include "tests/fixtures.h"
#include "tests/models/cases.h"

namespace graft::retain {
namespace {

using namespace tests;

struct EwcTest : testing::Test {
  void SetUp() override {
    at::set_num_threads(1);
    model.unfreeze_only(model.all_groups());
    torch::manual_seed(3);
    for (const auto& item : model.parameters_by_key()) fisher[item.key()] = torch::rand(item.value().sizes());
    fisher.at("bert.embeddings.word_embeddings.weight").slice(0, 3, 30).zero_();
  }
  double added(Ewc& ewc) {
    return ewc.add_gradients({.model = model, .epoch = 0, .step = 0, .steps = 1, .examples = 1, .seed = 1});
  }
  void move() {
    const torch::NoGradGuard no_grad;
    for (auto& item : model.parameters_by_key()) item.value() += 0.1 * torch::randn(item.value().sizes());
  }
  Case c{"bert_classification"};
  models::Model& model = *c.model;
  std::map<std::string, Tensor> fisher;
};

TEST_F(EwcTest, PenaltyAndGradientAreNothingAtTheAnchor) {
  Ewc ewc(model, anchors_at(model, fisher), 7);
  EXPECT_EQ(added(ewc), 0);
  for (const auto& item : model.parameters_by_key())
    EXPECT_EQ(item.value().grad().abs().max().item<float>(), 0) << item.key();
}

TEST_F(EwcTest, StrengthenedItPullsSoMuchMoreAndRemembersIt) {
  const auto anchors = anchors_at(model, fisher);
  move();
  Ewc ewc(model, anchors, 7);
  const double before = added(ewc);
  EXPECT_EQ(ewc.strengthen(4), 28);
  EXPECT_NEAR(added(ewc), 4 * before, 1e-6 * before);
  Ewc resumed(model, anchors, 7);
  resumed.load_state(ewc.state());
  EXPECT_EQ(added(resumed), added(ewc));
}

TEST_F(EwcTest, IsEquationThreeAndItsGradient) {
  const auto anchors = anchors_at(model, fisher, {"classifier.weight"});
  move();
  Tensor expected = torch::zeros({}, torch::kFloat64);
  for (const auto& item : model.parameters_by_key())
    if (const auto found = anchors.of.find(item.key()); found != anchors.of.end())
      expected = expected + 0.5 * 7 * (found->second.fisher * (item.value() - found->second.at).square()).sum();
  expected.backward();
  std::map<std::string, Tensor> gradients;
  for (auto& item : model.parameters_by_key()) {
    gradients[item.key()] = item.value().grad();
    item.value().mutable_grad() = item.key() == "classifier.bias" ? torch::ones_like(item.value()) : Tensor();
  }
  Ewc ewc(model, anchors, 7);
  EXPECT_NEAR(added(ewc), expected.item<double>(), 1e-5 * expected.item<double>());
  for (const auto& item : model.parameters_by_key()) {
    if (item.key() == "classifier.weight") {
      EXPECT_FALSE(item.value().grad().defined()) << "a parameter without an anchor is free";
      continue;
    }
    const auto already = item.key() == "classifier.bias" ? 1 : 0;
    EXPECT_LE(relative_difference(item.value().grad() - already, gradients.at(item.key())), 1e-5) << item.key();
  }
}

TEST_F(EwcTest, WithoutAFisherItIsL2SP) {
  const auto anchors = anchors_at(model, {});
  move();
  double expected = 0;
  for (const auto& item : model.parameters_by_key())
    expected += (item.value() - anchors.of.at(item.key()).at).square().sum().item<double>();
  Ewc ewc(model, anchors, 3, "l2sp");
  EXPECT_NEAR(added(ewc), 1.5 * expected, 1e-5 * expected);
}

TEST_F(EwcTest, FrozenParametersAreLeftAlone) {
  Ewc ewc(model, anchors_at(model, fisher), 7);
  move();
  model.unfreeze_only({"head"});
  EXPECT_GT(added(ewc), 0);
  for (const auto& item : model.parameters_by_key())
    EXPECT_EQ(item.value().grad().defined(), model.group_of(item.key()) == "head") << item.key();
}

TEST_F(EwcTest, DoesNotDependOnTheThreads) {
  const auto anchors = anchors_at(model, fisher);
  move();
  std::vector<double> values;
  for (const int threads : {1, 2}) {
    at::set_num_threads(threads);
    Ewc ewc(model, anchors, 7);
    values.push_back(added(ewc));
  }
  EXPECT_EQ(values[0], values[1]);
}

TEST_F(EwcTest, HoldsWhatMattersInAPhase) {
  const features::Feed feed(model, *c.inputs), validation_feed(model, *c.validation_inputs);
  const auto train = c.stream(feed), validation = c.validation(validation_feed);
  const auto start = tensors_of(model);
  const auto distance = [&](double strength) {
    Case fresh("bert_classification", 1, 0.0);
    train::PhasePlan plan{
        .stage = "finetune", .name = "x", .trainable = all_groups(*fresh.model), .epochs = 4, .metric = "loss"};
    for (const auto& group : plan.trainable) plan.learning_rates[group] = 0.01;
    const auto ewc = std::make_shared<Ewc>(*fresh.model, anchors_at(*fresh.model, {}), strength);
    const features::Feed feed(*fresh.model, *fresh.inputs), judged(*fresh.model, *fresh.validation_inputs);
    const auto train = fresh.stream(feed), validation = fresh.validation(judged);
    train::Phase phase(*fresh.model, plan, {.batch_size = 4}, train, validation, 1, {ewc});
    phase.run({});
    double sum = 0;
    for (const auto& [key, value] : phase.state_tensors())
      if (key.starts_with("weights.")) sum += (value - start.at(key.substr(8))).square().sum().item<double>();
    return sum;
  };
  const auto free = distance(0), held = distance(10);
  EXPECT_GT(free, 0.1);
  EXPECT_LT(held, 0.2 * free);
}

TEST_F(EwcTest, AnchorsAreReadAsTheyWereWritten) {
  const Scratch scratch;
  auto anchors = anchors_at(model, fisher);
  anchors.domains = {{{"data", "old"}, {"examples", 3}}};
  write_anchors(scratch / "fisher.safetensors", anchors);
  const auto read = read_anchors(scratch / "fisher.safetensors");
  EXPECT_EQ(read.domains, anchors.domains);
  ASSERT_EQ(read.of.size(), anchors.of.size());
  for (const auto& [key, anchor] : anchors.of) {
    EXPECT_TRUE(same(read.of.at(key).at, anchor.at)) << key;
    EXPECT_TRUE(same(read.of.at(key).fisher, anchor.fisher)) << key;
  }
  const auto sentence = message_of([&] { read_anchors(scratch / "none.safetensors"); });
  EXPECT_NE(sentence.find("graft retain fisher"), std::string::npos) << sentence;
}

TEST_F(EwcTest, ASecondDomainIsAddedToTheFirst) {
  const auto before = anchors_at(model, fisher);
  move();
  const auto now = anchors_at(model, fisher);
  const auto both = accumulated(before, now, 0.5);
  for (const auto& [key, anchor] : both.of) {
    EXPECT_TRUE(same(anchor.at, now.of.at(key).at)) << key;
    EXPECT_LE(relative_difference(anchor.fisher, 1.5 * fisher.at(key)), 1e-6) << key;
  }
}

TEST_F(EwcTest, AnchorsOfAnotherModelAreRefused) {
  Anchors other;
  other.of["nothing.of.this"] = {torch::zeros({2}), {}};
  const auto sentence = message_of([&] { Ewc(model, other, 1); });
  EXPECT_NE(sentence.find("another architecture"), std::string::npos) << sentence;
}

}  // namespace
}  // namespace graft::retain
