// LwF against the paper's equation; it pulls nowhere while the model answers as the source does.
#include "graft/retain/lwf.h"

#include <gtest/gtest.h>

#include <cmath>

#include "graft/features/cache.h"
#include "tests/fixtures.h"
#include "tests/models/cases.h"

namespace graft::retain {
namespace {

using namespace tests;

Lwf held(Case& source, const std::string& task, bool own_head, const LwfOptions& options) {
  const auto reads = source.model->head->reads();
  const features::Feed feed(*source.model, *source.inputs);
  return Lwf(answers(*source.model, feed, reads, answers_with_logits(task, reads, reads), {}, 13), task,
             own_head ? nullptr : source.model->head, options);
}

struct AskedOfLwf {
  AskedOfLwf(Case& c, Lwf& term, const std::vector<int64_t>& examples) {
    c.model->unfreeze_only(c.model->all_groups());
    c.model->eval();
    const features::Feed feed(*c.model, *c.inputs);
    const auto stream = c.stream(feed);
    const auto ends = train::ends_behind(*c.model, stream.enter(examples, 0), std::nullopt);
    const auto outputs = c.model->head->forward(ends);
    logits = outputs.at("logits").detach();
    value = term.value({*c.model, examples, ends, outputs, 0});
    if (value.requires_grad()) value.backward();
  }
  double largest_gradient(Case& c) {
    double largest = 0;
    for (const auto& item : c.model->parameters_by_key())
      if (item.value().grad().defined()) largest = std::max(largest, item.value().grad().abs().max().item<double>());
    return largest;
  }
  Tensor value, logits;
};

class LwfOf : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override { at::set_num_threads(1); }
};

TEST_P(LwfOf, TheSourceItselfIsPulledNowhereAndAMovedModelIs) {
  const std::vector<int64_t> examples{2, 3, 8};
  for (const bool classes : {true, false}) {
    Case source(GetParam(), 1), model(GetParam(), 1), moved(GetParam(), 2);
    auto term = held(source, classes ? "classification" : "features", false, {.weight = 1});
    AskedOfLwf still(model, term, examples), pulled(moved, term, examples);
    EXPECT_LT(still.largest_gradient(model), 1e-5 * std::max(1.0, pulled.largest_gradient(moved)));
    EXPECT_GT(pulled.largest_gradient(moved), 1e-4);
    EXPECT_LT(still.value.item<double>(), pulled.value.item<double>());
    if (!classes) {
      EXPECT_NEAR(still.value.item<double>(), 0, 1e-5);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Lwf, LwfOf,
                         testing::Values("bert_classification", "llama_classification", "vit_classification",
                                         "resnet_classification", "two_towers"),
                         [](const auto& info) { return test_name(info.param); });

TEST(Lwf, IsEquationThree) {
  at::set_num_threads(1);
  Case source("bert_classification", 1), model("bert_classification", 2);
  const std::vector<int64_t> examples{1, 5, 9, 10};
  auto own = held(source, "classification", true, {.weight = 3, .temperature = 2});
  auto none = held(source, "features", true, {.weight = 3});
  const AskedOfLwf asked(model, own, examples), of_source(source, none, examples);
  double expected = 0;
  const auto p = (of_source.logits.to(torch::kFloat64) / 2).softmax(1),
             q = (asked.logits.to(torch::kFloat64) / 2).softmax(1);
  for (int64_t i = 0; i < 4; ++i)
    for (int64_t k = 0; k < 3; ++k) expected -= p[i][k].item<double>() * std::log(q[i][k].item<double>());
  EXPECT_NEAR(asked.value.item<double>(), 3 * expected / 4, 1e-5);
}

TEST(Lwf, SeveralLabelsNumbersAndLabelsOnWordsAreHeldAsWhatTheyAre) {
  at::set_num_threads(1);
  const std::vector<int64_t> examples{1, 5, 9};
  for (const std::string task : {"multilabel", "regression", "tokens"}) {
    Case source("bert_" + task, 1), model("bert_" + task, 2);
    auto term = held(source, task, true, {.weight = 3, .temperature = 2}), none = held(source, "features", true, {});
    const AskedOfLwf asked(model, term, examples), of_source(source, none, examples);
    const auto p = of_source.logits.to(torch::kFloat64), q = asked.logits.to(torch::kFloat64);
    ASSERT_EQ(p.sizes(), q.sizes());
    double expected = 0;
    for (int64_t i = 0; i < p.size(0); ++i)
      for (int64_t k = 0; k < p.size(1); ++k) {
        const auto then = p[i][k].item<double>(), now = q[i][k].item<double>();
        const auto sigmoid = [](double x) { return 1 / (1 + std::exp(-x)); };
        if (task == "regression") expected += (then - now) * (then - now) / static_cast<double>(p.numel());
        else if (task == "multilabel")
          expected -= (sigmoid(then) * std::log(sigmoid(now)) + (1 - sigmoid(then)) * std::log(1 - sigmoid(now))) /
                      static_cast<double>(p.numel());
        else
          expected -= (p[i] / 2).softmax(0)[k].item<double>() * (q[i] / 2).log_softmax(0)[k].item<double>() /
                      static_cast<double>(p.size(0));
      }
    EXPECT_NEAR(asked.value.item<double>(), 3 * expected, 1e-4 * expected) << task;
  }
}

TEST(Answers, AreKeptUnderTheNameOfAllThatTheyHangOn) {
  at::set_num_threads(1);
  const Scratch scratch;
  Case a("bert_tokens", 1), b("bert_tokens", 2), same_as_a("bert_tokens", 1);
  const auto reads = a.model->head->reads();
  const auto file = [&](Case& c, bool logits) {
    return answers_file(*c.model, *c.inputs, reads, logits, scratch.path, {});
  };
  const auto place = file(a, true);
  EXPECT_EQ(file(same_as_a, true), place);
  EXPECT_NE(file(b, true), place);
  EXPECT_NE(file(a, false), place);
  const features::Feed feed(*a.model, *a.inputs), other(*b.model, *b.inputs);
  const auto asked = answers(*a.model, feed, reads, true, place);
  EXPECT_EQ(asked.lengths({0, 3}), (std::vector<int64_t>{a.inputs->length(0), a.inputs->length(3)}));
  EXPECT_TRUE(same(asked.of({3, 0}), torch::cat({asked.of({3}), asked.of({0})})));
  // Found, nobody is asked: another model's would be others.
  const auto found = answers(*b.model, other, reads, true, place);
  EXPECT_TRUE(same(found.rows, asked.rows));
  EXPECT_EQ(found.starts, asked.starts);
  EXPECT_EQ(features::stores_in(scratch.path, true).at(0).made_of["block"], "answers");
  // Damaged, it is as good as none.
  auto bytes = read_text(place);
  bytes[bytes.size() / 2] ^= 1;
  write_text(place, bytes);
  EXPECT_FALSE(same(answers(*b.model, other, reads, true, place).rows, asked.rows));
}

TEST(Lwf, StrengthenedItWeighsMoreAndRemembersIt) {
  at::set_num_threads(1);
  Case source("bert_classification", 1), model("bert_classification", 2), again("bert_classification", 2);
  auto term = held(source, "classification", true, {.weight = 3}),
       resumed = held(source, "classification", true, {.weight = 3});
  const double before = AskedOfLwf(model, term, {1, 5}).value.item<double>();
  EXPECT_EQ(term.strengthen(2), 6);
  resumed.load_state(term.state());
  EXPECT_NEAR(AskedOfLwf(again, resumed, {1, 5}).value.item<double>(), 2 * before, 1e-5);
}

TEST(Lwf, FrozenBlocksWithTheOldHeadAskForNothing) {
  at::set_num_threads(1);
  Case source("bert_classification", 1), model("bert_classification", 1);
  auto term = held(source, "classification", false, {.weight = 1});
  model.model->unfreeze_only({"head"});
  const features::Feed feed(*model.model, *model.inputs);
  const auto stream = model.stream(feed);
  const std::vector<int64_t> examples{0};
  const auto ends = train::ends_behind(*model.model, stream.enter(examples, 0), std::nullopt);
  EXPECT_FALSE(term.value({*model.model, examples, ends, model.model->head->forward(ends), 0}).defined());
}

}  // namespace
}  // namespace graft::retain
