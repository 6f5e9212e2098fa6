// Large products give what torch::linear gives, forward and backward, whichever library computes them.
#include "graft/nn/linear.h"

#include <gtest/gtest.h>

#include <ATen/autocast_mode.h>

#include "tests/models/cases.h"

namespace graft::nn {
namespace {

using namespace tests;
using torch::Tensor;

struct Result {
  Tensor y, of_x, of_weight, of_bias;
};

template <class Linear>
Result run(Linear&& function, const std::vector<int64_t>& shape, int64_t out, bool with_bias) {
  torch::manual_seed(3);
  const auto options = torch::TensorOptions().requires_grad(true);
  const auto x = torch::randn(shape, options), weight = torch::randn({out, shape.back()}, options);
  const auto bias = with_bias ? torch::randn({out}, options) : Tensor();
  const auto y = function(x, weight, bias);
  const auto cotangent = torch::randn_like(y);
  y.backward(cotangent);
  return {y.detach(), x.grad(), weight.grad(), with_bias ? bias.grad() : Tensor()};
}

class LinearTest : public testing::TestWithParam<std::pair<std::vector<int64_t>, int64_t>> {};

TEST_P(LinearTest, EqualsTorchLinear) {
  const auto& [shape, out] = GetParam();
  for (const bool with_bias : {true, false}) {
    const auto expected = run([](auto&&... a) { return torch::linear(a...); }, shape, out, with_bias);
    const auto found = run([](auto&&... a) { return nn::linear(a...); }, shape, out, with_bias);
    EXPECT_LE(relative_difference(found.y, expected.y), 2e-6);
    EXPECT_LE(relative_difference(found.of_x, expected.of_x), 2e-6);
    EXPECT_LE(relative_difference(found.of_weight, expected.of_weight), 2e-6);
    EXPECT_EQ(found.of_weight.sizes(), expected.of_weight.sizes());
    EXPECT_TRUE(found.of_weight.is_contiguous());
    if (with_bias) {
      EXPECT_LE(relative_difference(found.of_bias, expected.of_bias), 2e-6);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, LinearTest,
                         testing::Values(std::pair{std::vector<int64_t>{301, 384}, 96},
                                         std::pair{std::vector<int64_t>{7, 43, 384}, 96},
                                         std::pair{std::vector<int64_t>{3, 5}, 2},
                                         std::pair{std::vector<int64_t>{33, 128}, 1024}));

TEST(LinearTest, TwoRunsAreEqualToTheBit) {
  const auto once = run([](auto&&... a) { return nn::linear(a...); }, {301, 384}, 96, true),
             again = run([](auto&&... a) { return nn::linear(a...); }, {301, 384}, 96, true);
  EXPECT_TRUE(same(once.y, again.y) && same(once.of_x, again.of_x) && same(once.of_weight, again.of_weight));
}

TEST(LinearTest, ComputesOnlyTheGradientsThatAreWanted) {
  const auto x = torch::randn({301, 384}), weight = torch::randn({96, 384}), bias = torch::randn({96});
  EXPECT_FALSE(nn::linear(x, weight, bias).requires_grad());
  const auto only_bias = bias.clone().requires_grad_(true);
  nn::linear(x, weight, only_bias).sum().backward();
  EXPECT_LE(relative_difference(only_bias.grad(), torch::full({96}, 301.0)), 1e-6);
}

TEST(LinearTest, AutocastIsTorchsOwn) {
  const auto x = torch::randn({301, 384}), weight = torch::randn({96, 384});
  at::autocast::set_autocast_dtype(at::kCPU, torch::kBFloat16);
  at::autocast::set_autocast_enabled(at::kCPU, true);
  EXPECT_EQ(nn::linear(x, weight, {}).scalar_type(), torch::kBFloat16);
  at::autocast::clear_cache();
  at::autocast::set_autocast_enabled(at::kCPU, false);
}

}  // namespace
}  // namespace graft::nn
