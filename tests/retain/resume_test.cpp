// Every combination of terms goes on exactly where it stood: interrupted within an epoch, after strengths were raised.
#include <gtest/gtest.h>

#include <csignal>

#include "graft/retain/ewc.h"
#include "graft/retain/lwf.h"
#include "graft/retain/replay.h"
#include "tests/models/cases.h"
#include "tests/train/streams.h"

namespace graft::retain {
namespace {

using namespace tests;

constexpr int kEwc = 1, kL2sp = 2, kLwf = 4, kReplay = 8;

/// Is told before every step but an epoch's last what comes next, and then stops as a signal does.
struct StoppingAhead final : Through {
  using Through::Through;
  void expect(const std::vector<int64_t>&, uint64_t) const override {
    if (left-- == 0) throw Interrupted(SIGTERM);
  }
  mutable int64_t left = -1;
};

/// A model that learns with the terms of `mask` beside it, made anew as a resumed process makes it.
struct Learning {
  explicit Learning(int mask) {
    at::set_num_threads(1);
    torch::manual_seed(5);
    std::map<std::string, Tensor> fisher;
    for (const auto& item : source.model->parameters_by_key()) fisher[item.key()] = torch::rand(item.value().sizes());
    const std::vector<std::string> fresh{"classifier.weight", "classifier.bias"};
    if (mask & kEwc) terms.push_back(std::make_shared<Ewc>(*c.model, anchors_at(*source.model, fisher, fresh), 0.3));
    if (mask & kL2sp)
      terms.push_back(std::make_shared<Ewc>(*c.model, anchors_at(*source.model, {}, fresh), 0.1, "l2sp"));
    const auto reads = source.model->head->reads();
    const features::Feed asked(*source.model, *source.inputs);
    if (mask & kLwf)
      terms.push_back(std::make_shared<Lwf>(answers(*source.model, asked, reads, true), "classification",
                                            source.model->head, LwfOptions{.weight = 1}));
    if (mask & kReplay)
      terms.push_back(std::make_shared<Replay>(
          replayed, std::vector<int64_t>{1, 2, 3, 7, 9}, 0.3, 3, source.model->head,
          Replay::Beside{.logits = answers(*source.model, asked, reads, true), .logits_weight = 0.5}));
    source.model->unfreeze_only({});
    train::PhasePlan plan{
        .stage = "finetune", .name = "all", .trainable = all_groups(*c.model), .epochs = 3, .metric = "loss"};
    for (const auto& group : plan.trainable) plan.learning_rates[group] = 1e-2;
    phase = std::make_unique<train::Phase>(
        *c.model, plan, train::TrainOptions{.batch_size = 3, .micro_batch_tokens = 11}, stopping, validation, 7, terms);
  }

  /// Raises all strengths after each epoch.
  void run() {
    phase->run({.epoch_done = [&](const Json&) {
      for (const auto& term : terms) term->strengthen(1.5);
    }});
  }

  Case c{"bert_classification", 1}, source{"bert_classification", 2};
  features::Feed feed{*c.model, *c.inputs}, validation_feed{*c.model, *c.validation_inputs};
  train::Supervised learned = c.stream(feed), validation = c.validation(validation_feed), replayed = c.stream(feed);
  StoppingAhead stopping{learned};
  std::vector<std::shared_ptr<train::LossTerm>> terms;
  std::unique_ptr<train::Phase> phase;
};

class Resume : public testing::TestWithParam<int> {};

TEST_P(Resume, WithinAnEpochEndsWithTheSameWeightsAndHistory) {
  Learning unbroken(GetParam());
  unbroken.run();
  Learning broken(GetParam());
  broken.stopping.left = 5;  // four steps an epoch, three of them told: in the second
  EXPECT_THROW(broken.run(), Interrupted);
  ASSERT_EQ(broken.phase->state().epoch, 1);
  ASSERT_EQ(broken.phase->state().step, 2);
  std::map<std::string, Tensor> tensors;
  for (const auto& [key, value] : broken.phase->state_tensors()) tensors[key] = value.clone();
  const auto state = Json::parse(broken.phase->state_json().dump());
  Learning resumed(GetParam());
  resumed.phase->resume(state, tensors);
  resumed.run();
  const auto expected = tensors_of(*unbroken.c.model);
  for (const auto& [key, value] : tensors_of(*resumed.c.model)) EXPECT_TRUE(same(value, expected.at(key))) << key;
  const auto told = [](const Learning& learning) {
    auto rows = learning.phase->state().history;
    for (auto& row : rows) {
      row.erase("seconds");
      for (auto& term : row["terms"]) term.erase("seconds");
    }
    return rows;
  };
  EXPECT_EQ(told(resumed), told(unbroken));
  for (size_t i = 0; i < unbroken.terms.size(); ++i)
    EXPECT_EQ(resumed.terms[i]->state(), unbroken.terms[i]->state()) << unbroken.terms[i]->name();
}

INSTANTIATE_TEST_SUITE_P(Terms, Resume, testing::Range(1, 16), [](const auto& info) {
  std::string name;
  for (const auto& [bit, word] : {std::pair{kEwc, "Ewc"}, {kL2sp, "L2sp"}, {kLwf, "Lwf"}, {kReplay, "Replay"}})
    if (info.param & bit) name += word;
  return name;
});

}  // namespace
}  // namespace graft::retain
