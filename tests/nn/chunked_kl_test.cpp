// The divergence in chunks against log_softmax and autograd on the whole matrix of logits.
#include "graft/nn/chunked_kl.h"

#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>

#include "tests/models/cases.h"

namespace graft::nn {
namespace {

using namespace tests;
using torch::Tensor;

constexpr int64_t kRows = 23, kWidth = 6, kVocabulary = 11;

struct ChunkedKl : testing::TestWithParam<KlDirection> {
  void SetUp() override {
    at::set_num_threads(1);
    torch::manual_seed(4);
    const auto wide = torch::TensorOptions().dtype(torch::kFloat64);
    tuned = {torch::randn({kRows, kWidth}, wide), torch::randn({kVocabulary, kWidth}, wide),
             torch::randn({kVocabulary}, wide)};
    source = {torch::randn({kRows, 4}, wide), torch::randn({kVocabulary, 4}, wide), {}};
    for (auto* x : {&tuned.hidden, &tuned.matrix, &tuned.bias}) x->set_requires_grad(true);
  }
  /// By ATen, over all logits; the source's masses grouped as `likely` knows them.
  Tensor plain(const MostLikely* likely = nullptr) const {
    auto log_p = torch::linear(tuned.hidden, tuned.matrix, tuned.bias).log_softmax(1);
    auto log_q = torch::linear(source.hidden, source.matrix, source.bias).log_softmax(1);
    if (likely) {
      const auto ids = likely->ids.to(torch::kInt64);
      const auto grouped = [&](const Tensor& log) {
        const auto single = log.gather(1, ids);
        return torch::cat({single, (1 - single.exp().sum(1, true)).log()}, 1);
      };
      log_p = grouped(log_p), log_q = grouped(log_q);
    }
    return GetParam() == KlDirection::tuned_source ? (log_p.exp() * (log_p - log_q)).sum()
                                                   : (log_q.exp() * (log_q - log_p)).sum();
  }
  std::vector<Tensor> gradients(const Tensor& of) const {
    return torch::autograd::grad({of}, {tuned.hidden, tuned.matrix, tuned.bias});
  }
  void expect_equal(const Tensor& value, const Tensor& expected, double tolerance) const {
    EXPECT_NEAR(value.item<double>(), expected.item<double>(), tolerance * std::abs(expected.item<double>()));
    const auto a = gradients(value * 3), b = gradients(expected * 3);
    for (size_t i = 0; i < a.size(); ++i) EXPECT_LE(relative_difference(a[i], b[i]), tolerance) << i;
  }
  LogitsOf narrow(const LogitsOf& of) const {
    const auto f = [](const Tensor& x) { return x.defined() ? x.detach().to(torch::kFloat32) : x; };
    return {f(of.hidden), f(of.matrix), f(of.bias)};
  }
  LogitsOf tuned, source;
};

TEST_P(ChunkedKl, IsWhatLogSoftmaxAndAutogradGive) {
  expect_equal(chunked_kl(tuned, source, GetParam()), plain(), 1e-10);
  EXPECT_FALSE(source.hidden.requires_grad());
}

TEST_P(ChunkedKl, InFloat32ItIsTheSameToRounding) {
  const auto expected = plain();
  const auto expected_gradients = gradients(expected);
  auto mine = narrow(tuned);
  for (auto* x : {&mine.hidden, &mine.matrix, &mine.bias}) x->set_requires_grad(true);
  const auto value = chunked_kl(mine, narrow(source), GetParam());
  EXPECT_NEAR(value.item<double>(), expected.item<double>(), 5e-6 * expected.item<double>());
  value.backward();
  EXPECT_LE(relative_difference(mine.hidden.grad().to(torch::kFloat64), expected_gradients[0]), 5e-6);
  EXPECT_LE(relative_difference(mine.matrix.grad().to(torch::kFloat64), expected_gradients[1]), 5e-6);
  EXPECT_LE(relative_difference(mine.bias.grad().to(torch::kFloat64), expected_gradients[2]), 5e-6);
}

TEST_P(ChunkedKl, ChunksMakeTheWhole) {
  for (const int64_t rows : {1, 7, 23, 100})
    expect_equal(chunked_kl(tuned, source, GetParam(), rows), chunked_kl(tuned, source, GetParam(), kRows), 1e-12);
}

TEST_P(ChunkedKl, BlocksOfALargeVocabularyMakeTheWhole) {
  const int64_t V = 70'000;  // of which a block holds 7 rows
  const auto wide = torch::TensorOptions().dtype(torch::kFloat64);
  tuned.matrix = torch::randn({V, kWidth}, wide).set_requires_grad(true);
  tuned.bias = torch::randn({V}, wide).set_requires_grad(true);
  source.matrix = torch::randn({V, 4}, wide);
  expect_equal(chunked_kl(tuned, source, GetParam()), plain(), 1e-10);
  expect_equal(chunked_kl(tuned, source, GetParam(), 10), plain(), 1e-10);
  const auto likely = most_likely(source, 5);
  expect_equal(chunked_kl(tuned, likely, GetParam()), plain(&likely), 1e-8);
}

TEST_P(ChunkedKl, OfAModelToItselfItAndItsGradientAreNothing) {
  auto mine = narrow(tuned);
  for (auto* x : {&mine.hidden, &mine.matrix, &mine.bias}) x->set_requires_grad(true);
  const auto value = chunked_kl(mine, narrow(tuned), GetParam(), 7);
  EXPECT_EQ(value.item<float>(), 0);
  value.backward();
  for (const auto& x : {mine.hidden, mine.matrix, mine.bias}) EXPECT_EQ(x.grad().abs().max().item<float>(), 0);
}

TEST_P(ChunkedKl, OfTheLikeliestTokensItIsThatOfTheGroups) {
  for (const int64_t k : {1, 3, 10}) {
    const auto likely = most_likely(source, k, 5);
    EXPECT_EQ(likely.ids.sizes(), (std::vector<int64_t>{kRows, k}));
    expect_equal(chunked_kl(tuned, likely, GetParam(), 4), plain(&likely), 1e-8);
    const double grouped = chunked_kl(tuned, likely, GetParam()).item<double>(), whole = plain().item<double>();
    if (k < kVocabulary - 1) EXPECT_LT(grouped, whole) << "grouping loses";
    else EXPECT_NEAR(grouped, whole, 1e-12 * whole) << "the rest is one token, so nothing is grouped";
  }
}

TEST_P(ChunkedKl, OfAllTokensItIsTheWhole) {
  for (const int64_t k : {kVocabulary, kVocabulary + 9})
    expect_equal(chunked_kl(tuned, most_likely(source, k), GetParam(), 6), plain(), 1e-10);
}

TEST_P(ChunkedKl, HugeDifferencesStayFinite) {
  auto mine = narrow(tuned), other = narrow(source);
  mine.hidden = (mine.hidden * 300).set_requires_grad(true);
  other.hidden = other.hidden * 300;
  for (const auto& value : {chunked_kl(mine, other, GetParam()), chunked_kl(mine, most_likely(other, 2), GetParam())}) {
    EXPECT_TRUE(std::isfinite(value.item<float>()));
    const auto gradient = torch::autograd::grad({value}, {mine.hidden})[0];
    EXPECT_TRUE(gradient.isfinite().all().item<bool>());
  }
}

TEST_P(ChunkedKl, WhatDoesNotLearnGetsNoGradient) {
  auto mine = narrow(tuned);
  mine.hidden.set_requires_grad(true);
  chunked_kl(mine, narrow(source), GetParam()).backward();
  EXPECT_TRUE(mine.hidden.grad().defined());
  EXPECT_FALSE(mine.matrix.grad().defined());
  const torch::NoGradGuard no_grad;
  EXPECT_FALSE(chunked_kl(mine, narrow(source), GetParam()).requires_grad());
}

INSTANTIATE_TEST_SUITE_P(Both, ChunkedKl, testing::Values(KlDirection::tuned_source, KlDirection::source_tuned),
                         [](const auto& info) {
                           return info.param == KlDirection::tuned_source ? "tuned_source" : "source_tuned";
                         });

}  // namespace
}  // namespace graft::nn
