// Which source examples are kept: of each label alike, any with the same chance, those nearest to the mean.
#include "graft/retain/buffer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

namespace graft::retain {
namespace {

TEST(Balanced, HasAsManyOfEachLabelAsThereCanBe) {
  std::vector<int64_t> labels;
  for (int64_t i = 0; i < 100; ++i) labels.push_back(i < 90 ? 0 : i < 97 ? 1 : 2);
  const auto chosen = balanced(labels, 20, 4);
  ASSERT_EQ(chosen.size(), 20u);
  std::vector<int64_t> counts(3);
  for (const auto i : chosen) ++counts[labels[i]];
  EXPECT_EQ(counts, (std::vector<int64_t>{10, 7, 3}));
  EXPECT_EQ(balanced(labels, 20, 4), chosen);
  EXPECT_EQ(balanced(labels, 0, 4).size(), 100u);
}

TEST(Reservoir, KeepsEachExampleWithTheSameChance) {
  std::vector<int64_t> counts(20);
  for (uint64_t seed = 0; seed < 2000; ++seed) {
    const auto kept = reservoir(20, 5, seed);
    ASSERT_EQ(kept.size(), 5u);
    for (size_t i = 1; i < 5; ++i) ASSERT_LT(kept[i - 1], kept[i]) << "ascending, none twice";
    for (const auto i : kept) ++counts[i];
  }
  // 500 of each are expected; the standard deviation is 19.
  for (const auto count : counts) EXPECT_NEAR(count, 500, 80);
  EXPECT_EQ(reservoir(20, 0, 1).size(), 20u);
  EXPECT_EQ(reservoir(20, 30, 1).size(), 20u);
}

TEST(Herding, TakesWhatBringsTheRunningMeanClosest) {
  // On the unit circle at 0, 10, 20, 30 and 100 degrees; the mean points to 28.6.
  std::vector<float> values;
  for (const double degrees : {0, 10, 20, 30, 100}) {
    const double angle = degrees * M_PI / 180;
    values.push_back(static_cast<float>(3 * std::cos(angle)));  // lengths do not matter
    values.push_back(static_cast<float>(3 * std::sin(angle)));
  }
  const auto features = torch::tensor(values).view({5, 2});
  EXPECT_EQ(herded(features, {0, 0, 0, 0, 0}, 1), (std::vector<int64_t>{3}));

  // Against the definition, step by step.
  torch::manual_seed(4);
  const auto many = torch::randn({40, 6}, torch::kFloat64) + 0.5;
  std::vector<int64_t> labels;
  for (int64_t i = 0; i < 40; ++i) labels.push_back(i < 30 ? 0 : 1);
  std::vector<int64_t> expected;
  for (const auto& [first, last] : {std::pair<int64_t, int64_t>{0, 30}, {30, 40}}) {
    auto phi = many.slice(0, first, last);
    phi = phi / phi.norm(2, 1, true);
    const auto mean = phi.mean(0);
    std::vector<int64_t> chosen;
    auto sum = torch::zeros({6}, torch::kFloat64);
    for (int64_t k = 1; k <= 8; ++k) {
      int64_t best = -1;
      double least = 1e9;
      for (int64_t i = 0; i < phi.size(0); ++i) {
        if (std::find(chosen.begin(), chosen.end(), i) != chosen.end()) continue;
        const auto distance = (mean - (sum + phi[i]) / k).norm().item<double>();
        if (distance < least - 1e-12) least = distance, best = i;
      }
      chosen.push_back(best);
      sum += phi[best];
    }
    for (const auto i : chosen) expected.push_back(first + i);
  }
  std::sort(expected.begin(), expected.end());
  EXPECT_EQ(herded(many, labels, 16), expected) << "eight of each label";
}

}  // namespace
}  // namespace graft::retain
