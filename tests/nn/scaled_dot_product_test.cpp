#include "graft/nn/scaled_dot_product.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "graft/nn/autocast.h"
#include "tests/models/cases.h"

namespace graft::nn {
namespace {

using tests::relative_difference;
using torch::Tensor;

// So rare that nothing is dropped here: what is left is the other way to the same result.
constexpr double kHardly = 1e-9;

using Attention = Tensor (*)(const Tensor&, const Tensor&, const Tensor&, const Tensor&, const DotProductOptions&);

Tensor kernel(const Tensor& query, const Tensor& key, const Tensor& value, const Tensor& mask,
              const DotProductOptions& o) {
  return at::scaled_dot_product_attention(query, key, value, mask.defined() ? std::optional(mask) : std::nullopt,
                                          o.dropout, o.causal, o.scale);
}

std::vector<Tensor> result_and_gradients(Attention attention, const std::vector<Tensor>& inputs, const Tensor& mask,
                                         const DotProductOptions& o) {
  std::vector<Tensor> leaves;
  for (const auto& x : inputs) leaves.push_back(x.detach().clone().requires_grad_());
  const auto result = attention(leaves[0], leaves[1], leaves[2], mask, o);
  (result * torch::arange(result.numel()).view(result.sizes()).sin()).sum().backward();
  std::vector<Tensor> all{result.detach()};
  for (const auto& x : leaves) all.push_back(x.grad());
  return all;
}

TEST(ScaledDotProduct, TheStepsAreThoseOfTheKernel) {
  torch::manual_seed(1);
  for (const int64_t T : {9, 40}) {  // short and long for heads of 8
    const std::vector<Tensor> inputs{torch::randn({2, 3, T, 8}), torch::randn({2, 3, T, 8}),
                                     torch::randn({2, 3, T, 8})};
    const auto check = [&](const Tensor& mask, DotProductOptions o) {
      const auto expected = result_and_gradients(kernel, inputs, mask, o);
      for (const double dropout : {0.0, kHardly}) {
        o.dropout = dropout;
        const auto steps = result_and_gradients(scaled_dot_product, inputs, mask, o);
        for (size_t i = 0; i < expected.size(); ++i)
          EXPECT_LE(relative_difference(steps[i], expected[i]), 2e-6) << i << " of " << T << ", dropout " << dropout;
      }
    };
    check({}, {});
    check({}, {.causal = true});
    check({}, {.scale = 0.7});
    check(torch::ones({2, 1, T, T}, torch::kBool).tril(), {});
    check(torch::randn({1, 3, T, T}), {});
  }
}

TEST(ScaledDotProduct, DropoutTakesWeightsAndLeavesTheMean) {
  torch::manual_seed(2);
  const auto q = torch::zeros({1, 1, 2000, 8}), k = torch::zeros({1, 1, 50, 8}), v = torch::ones({1, 1, 50, 8});
  const auto mixed = scaled_dot_product(q, k, v, {}, {.dropout = 0.2});
  EXPECT_NEAR(mixed.mean().item<double>(), 1, 0.01);
  EXPECT_NEAR(mixed.select(-1, 0).std().item<double>(), std::sqrt(0.2 / 0.8 / 50), 0.01);
}

TEST(ScaledDotProduct, OfBfloat16UnderAutocastIsThatOfFloat32Rounded) {
  torch::manual_seed(3);
  const auto half = [](const Tensor& x) { return x.to(torch::kBFloat16); };
  const auto q = half(torch::randn({2, 3, 9, 8})), k = half(torch::randn({2, 3, 9, 8})),
             v = half(torch::randn({2, 3, 9, 8}));
  const auto exact = kernel(widened(q), widened(k), widened(v), {}, {});
  const Autocast autocast(torch::kCPU, true);
  const auto near = scaled_dot_product(q, k, v, {}, {});
  EXPECT_EQ(near.scalar_type(), torch::kBFloat16);
  EXPECT_LE(relative_difference(near.to(torch::kFloat32), exact), 1.0 / 256);
}

}  // namespace
}  // namespace graft::nn
