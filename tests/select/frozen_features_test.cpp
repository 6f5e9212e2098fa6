// What of a frozen source is scored.
#include "graft/select/frozen_features.h"

#include <gtest/gtest.h>
#include <torch/types.h>

#include <numeric>

#include "tests/models/cases.h"

namespace graft::select {
namespace {

using namespace tests;

TEST(FrozenFeatures, TheHeadsPositionAndTheMeanOfWhatEntersTheLastBlockWeighTheSame) {
  Case c{"bert_classification"};
  c.model->unfreeze_only({"head"});
  c.model->eval();
  const features::Feed feed(*c.model, *c.inputs);
  std::vector<int64_t> words;
  const auto values =
      frozen_features(*c.model, feed, c.task, c.label_names, c.examples, {}, nullptr, 100, 1, words).values;

  const torch::NoGradGuard no_grad;
  std::vector<int64_t> all(c.examples.size());
  std::iota(all.begin(), all.end(), 0);
  const auto& chain = c.model->chains.front();
  const auto last = static_cast<int64_t>(chain.blocks.size()) - 1;
  EXPECT_EQ(mean_boundary(chain, c.task), last);
  EXPECT_EQ(mean_boundary(chain, "tokens"), std::nullopt);
  const auto end = feed.enter(chain.name, last + 1, all, c.model->head->reads()).hidden.values;
  const auto mean = feed.mean(chain.name, last, all);
  ASSERT_EQ(values.size(1), end.size(1) + mean.size(1));
  int64_t column = 0;
  for (const auto& part : {end, mean}) {
    const auto found = values.narrow(1, column, part.size(1));
    column += part.size(1);
    EXPECT_NEAR(found.square().sum().item<double>() / static_cast<double>(all.size()), 1, 1e-5);
    EXPECT_LT(found.mean(0).abs().max().item<double>(), 1e-6);
    const auto centred = part - part.mean(0, true);
    EXPECT_LT(relative_difference(found * centred.norm() / found.norm(), centred), 1e-5);
  }
}

TEST(Words, ThoseThatAllSourcesSeeAreLeft) {
  const auto source = [](const std::vector<int64_t>& words) {
    FrozenFeatures f;
    f.words = words;
    f.values = torch::tensor(words, torch::kLong).to(torch::kFloat).unsqueeze(1);
    f.targets.classes = torch::tensor(words, torch::kLong) % 2;
    return f;
  };
  auto a = source({1, 2, 5, 7}), b = source({2, 5, 7, 9}), c = source({1, 2, 7, 9});
  keep_common_words({&a, &b, &c});
  for (const auto* one : {&a, &b, &c}) {
    EXPECT_EQ(one->words, (std::vector<int64_t>{2, 7}));
    EXPECT_TRUE(torch::equal(one->values.flatten(), torch::tensor({2.0F, 7.0F})));
    EXPECT_TRUE(torch::equal(one->targets.classes, torch::tensor({0, 1}, torch::kLong)));
  }
}

}  // namespace
}  // namespace graft::select
