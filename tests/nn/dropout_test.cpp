#include "graft/nn/dropout.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "tests/models/cases.h"

namespace graft::nn {
namespace {

using tests::same;
using torch::Tensor;

TEST(Dropout, DropsTheShareAskedForAndLeavesTheMeanAsItWas) {
  torch::manual_seed(1);
  for (const double p : {0.1, 0.5, 0.9}) {
    const auto y = nn::dropout(torch::ones({400, 1000}), p, true);
    const auto n = static_cast<double>(y.numel());
    const double deviation = std::sqrt(p * (1 - p) / n);
    EXPECT_NEAR(y.eq(0).to(torch::kFloat64).mean().item<double>(), p, 5 * deviation);
    EXPECT_NEAR(y.to(torch::kFloat64).mean().item<double>(), 1, 5 * deviation / (1 - p));
    EXPECT_NEAR(y.max().item<double>() * (1 - p), 1, 1e-4);
  }
}

// Four values share a draw.
TEST(Dropout, NeighboursAreDroppedIndependently) {
  torch::manual_seed(2);
  constexpr double kP = 0.3;
  const auto dropped = nn::dropout(torch::ones({250000, 4}), kP, true).eq(0).to(torch::kFloat64);
  const auto together = dropped.t().mm(dropped) / 250000;
  for (int64_t i = 0; i < 4; ++i)
    for (int64_t j = 0; j < 4; ++j)
      EXPECT_NEAR(together[i][j].item<double>(), i == j ? kP : kP * kP, 0.005) << i << " " << j;
}

TEST(Dropout, IsTheInputOutsideTrainingNothingAtOneAndTheSameForASeed) {
  const auto x = torch::randn({7, 3});
  EXPECT_TRUE(same(nn::dropout(x, 0.5, false), x));
  EXPECT_TRUE(same(nn::dropout(x, 0, true), x));
  EXPECT_TRUE(nn::dropout(x, 1, true).eq(0).all().item<bool>());
  EXPECT_EQ(nn::dropout(torch::empty({0, 3}), 0.5, true).sizes(), (std::vector<int64_t>{0, 3}));
  torch::manual_seed(3);
  const auto first = nn::dropout(x, 0.5, true), second = nn::dropout(x, 0.5, true);
  torch::manual_seed(3);
  EXPECT_TRUE(same(nn::dropout(x, 0.5, true), first));
  EXPECT_FALSE(same(first, second));
  EXPECT_EQ(nn::dropout(x.to(torch::kBFloat16), 0.5, true).scalar_type(), torch::kBFloat16);
}

TEST(Dropout, TheGradientPassesWhereTheValueDid) {
  const auto x = torch::randn({50, 3}, torch::requires_grad());
  const auto y = nn::dropout(x, 0.4, true);
  y.sum().backward();
  EXPECT_TRUE(torch::allclose(x.grad() * x.detach(), y.detach()));
}

}  // namespace
}  // namespace graft::nn
