// LwF against the paper's equation; it pulls nowhere while the model answers as the source does.
#include "graft/retain/lwf.h"

#include <gtest/gtest.h>

#include "tests/models/cases.h"

namespace graft::retain {
namespace {

using namespace tests;

struct Asked {
  Asked(Case& c, Lwf& term, const std::vector<int64_t>& examples) {
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
    Lwf term(*source.model, *source.inputs, source.model->head->reads(), classes, false, {.weight = 1}, 13);
    EXPECT_EQ(term.holds_answers(), classes);
    Asked still(model, term, examples), pulled(moved, term, examples);
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
  Lwf own(*source.model, *source.inputs, source.model->head->reads(), true, true, {.weight = 3, .temperature = 2});
  Lwf none(*source.model, *source.inputs, source.model->head->reads(), false, true, {.weight = 3});
  const Asked asked(model, own, examples), of_source(source, none, examples);
  double expected = 0;
  const auto p = (of_source.logits.to(torch::kFloat64) / 2).softmax(1),
             q = (asked.logits.to(torch::kFloat64) / 2).softmax(1);
  for (int64_t i = 0; i < 4; ++i)
    for (int64_t k = 0; k < 3; ++k) expected -= p[i][k].item<double>() * std::log(q[i][k].item<double>());
  EXPECT_NEAR(asked.value.item<double>(), 3 * expected / 4, 1e-5);
}

TEST(Lwf, FrozenBlocksWithTheOldHeadAskForNothing) {
  at::set_num_threads(1);
  Case source("bert_classification", 1), model("bert_classification", 1);
  Lwf term(*source.model, *source.inputs, source.model->head->reads(), true, false, {.weight = 1});
  model.model->unfreeze_only({"head"});
  const features::Feed feed(*model.model, *model.inputs);
  const auto stream = model.stream(feed);
  const std::vector<int64_t> examples{0};
  const auto ends = train::ends_behind(*model.model, stream.enter(examples, 0), std::nullopt);
  EXPECT_FALSE(term.value({*model.model, examples, ends, model.model->head->forward(ends), 0}).defined());
}

}  // namespace
}  // namespace graft::retain
