// AdamW and the learning-rate schedule against their formulas, worked out in double precision.
#include <gtest/gtest.h>

#include "graft/core/error.h"
#include "graft/train/adamw.h"
#include "graft/train/schedule.h"
#include "tests/fixtures.h"

namespace graft::train {
namespace {

using tests::message_of;

Tensor parameter(const std::vector<double>& values) { return torch::tensor(values, torch::kFloat32).requires_grad_(); }
void set_gradient(const Tensor& p, const std::vector<double>& values) {
  p.mutable_grad() = torch::tensor(values, torch::kFloat32);
}
double at(const Tensor& p, int64_t i) { return p.detach()[i].item<double>(); }

/// Loshchilov and Hutter 2019, alg. 2, as PyTorch has it: p -= lr wd p; p -= lr m_hat / (sqrt(v_hat) + eps).
struct ByHand {
  double p, m = 0, v = 0;
  int t = 0;
  void step(double g, double lr, double wd) {
    ++t;
    m = 0.9 * m + 0.1 * g;
    v = 0.999 * v + 0.001 * g * g;
    p -= lr * wd * p;
    p -= lr * (m / (1 - std::pow(0.9, t))) / (std::sqrt(v / (1 - std::pow(0.999, t))) + 1e-8);
  }
};

TEST(AdamW, StepsAsTheFormula) {
  const auto p = parameter({1.0, -2.0});
  AdamW optimizer({});
  optimizer.add("p", p, 0.1, 0.01);
  ByHand a{1.0}, b{-2.0};
  const double gradients[3][2] = {{0.5, -1.0}, {0.25, 3.0}, {-1.0, 0.125}}, factors[3] = {0.5, 1.0, 0.25};
  for (int i = 0; i < 3; ++i) {
    set_gradient(p, {gradients[i][0], gradients[i][1]});
    optimizer.step(factors[i]);
    a.step(gradients[i][0], 0.1 * factors[i], 0.01);
    b.step(gradients[i][1], 0.1 * factors[i], 0.01);
    EXPECT_NEAR(at(p, 0), a.p, 1e-6) << i;
    EXPECT_NEAR(at(p, 1), b.p, 1e-6) << i;
  }
  // The first step by hand: 1 - 0.05 * 0.01 - 0.05 = 0.9495, whatever the gradient's size.
  ByHand first{1.0};
  first.step(0.5, 0.05, 0.01);
  EXPECT_NEAR(first.p, 0.9495, 1e-8);
}

// A set of parameters told apart by value or hash would step one of two zero biases twice and the other never.
TEST(AdamW, TwoParametersOfEqualValueBothMove) {
  const auto a = parameter({0, 0}), b = parameter({0, 0}), other = parameter({0, 0});
  AdamW optimizer({});
  optimizer.add("a", a, 0.1, 0);
  optimizer.add("b", b, 0.1, 0);
  optimizer.add("other", other, 0.01, 0);
  for (const auto& p : {a, b, other}) set_gradient(p, {1, 1});
  optimizer.step(1);
  EXPECT_NEAR(at(a, 0), -0.1, 1e-6);
  EXPECT_NEAR(at(b, 0), -0.1, 1e-6);
  EXPECT_NEAR(at(other, 0), -0.01, 1e-6);
}

TEST(AdamW, AnUndefinedGradientCountsAsZero) {
  const auto p = parameter({1});
  AdamW optimizer({});
  optimizer.add("p", p, 0.1, 0.5);
  optimizer.step(1);
  EXPECT_NEAR(at(p, 0), 0.95, 1e-6) << "weight decay alone";
  EXPECT_EQ(optimizer.clip_gradients(1).item<double>(), 0);
}

TEST(AdamW, ClipsTheCommonNorm) {
  const auto a = parameter({0, 0}), b = parameter({0});
  AdamW optimizer({});
  optimizer.add("a", a, 0.1, 0);
  optimizer.add("b", b, 0.2, 0);
  set_gradient(a, {2, 3});
  set_gradient(b, {6});
  EXPECT_NEAR(optimizer.clip_gradients(0).item<double>(), 7, 1e-6);
  EXPECT_EQ(at(b.grad(), 0), 6);
  EXPECT_NEAR(optimizer.clip_gradients(3.5).item<double>(), 7, 1e-6);
  EXPECT_NEAR(at(a.grad(), 0), 1, 1e-6);
  EXPECT_NEAR(at(b.grad(), 0), 3, 1e-6);
  EXPECT_NEAR(optimizer.clip_gradients(3.6).item<double>(), 3.5, 1e-6);
  EXPECT_NEAR(at(b.grad(), 0), 3, 1e-6) << "a smaller norm stays";
  optimizer.zero_grad();
  EXPECT_FALSE(a.grad().defined());
}

TEST(AdamW, AStateTakenUpGoesOnAsBefore) {
  const auto run = [](int stop) {
    auto p = parameter({1, 2});
    auto optimizer = std::make_unique<AdamW>(AdamW::Options{});
    optimizer->add("p", p, 0.1, 0.01);
    for (int i = 0; i < 5; ++i) {
      if (i == stop) {
        std::map<std::string, Tensor> state;
        for (const auto& [name, value] : optimizer->state()) state[name] = value.clone();
        EXPECT_EQ(state.size(), 3u);
        optimizer = std::make_unique<AdamW>(AdamW::Options{});
        optimizer->add("p", p, 0.1, 0.01);
        optimizer->load_state(state);
      }
      set_gradient(p, {i - 1.5, 0.3 * i});
      optimizer->step(1);
    }
    return p.detach().clone();
  };
  EXPECT_TRUE(torch::equal(run(3), run(-1)));
}

TEST(AdamW, AStateOfAnotherRunIsASentence) {
  AdamW optimizer({}), other({});
  optimizer.add("p", parameter({1, 2}), 0.1, 0);
  EXPECT_TRUE(message_of([&] {
                optimizer.load_state({});
              }).starts_with("the checkpoint does not fit the run: the optimizer's p.exp_avg is missing"));
  other.add("p", parameter({1}), 0.1, 0);
  EXPECT_FALSE(message_of([&] { optimizer.load_state(other.state()); }).empty());
}

TEST(Schedule, RisesThenFallsInStraightLines) {
  EXPECT_EQ(linear_warmup_decay(0, 0.1), 0);
  EXPECT_NEAR(linear_warmup_decay(0.05, 0.1), 0.5, 1e-12);
  EXPECT_EQ(linear_warmup_decay(0.1, 0.1), 1);
  EXPECT_NEAR(linear_warmup_decay(0.55, 0.1), 0.5, 1e-12);
  EXPECT_EQ(linear_warmup_decay(1, 0.1), 0);
  EXPECT_EQ(linear_warmup_decay(0, 0), 1);
  EXPECT_NEAR(linear_warmup_decay(0.25, 0), 0.75, 1e-12);
  EXPECT_EQ(linear_warmup_decay(1.5, 0.1), 0) << "never below 0";
}

}  // namespace
}  // namespace graft::train
