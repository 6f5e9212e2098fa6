// Metrics against scikit-learn 1.9, scipy 1.17 and seqeval 1.2; the snippet that made each number stands above it.
#include "graft/train/metrics.h"

#include <gtest/gtest.h>

#include <cmath>

namespace graft::train {
namespace {

Tensor ints(const std::vector<int64_t>& values) { return torch::tensor(values, torch::kInt64); }
Tensor doubles(const std::vector<double>& values) { return torch::tensor(values, torch::kFloat64); }

constexpr double kExact = 1e-12;

// p=[0,1,2,2,1,0,2,1,0,0]; t=[0,1,1,2,1,2,2,0,0,0]
// accuracy_score(t,p), f1_score(t,p,average="macro"), matthews_corrcoef(t,p)
TEST(Metrics, OfClassesAsScikitLearnHasThem) {
  const auto p = ints({0, 1, 2, 2, 1, 0, 2, 1, 0, 0}), t = ints({0, 1, 1, 2, 1, 2, 2, 0, 0, 0});
  EXPECT_NEAR(accuracy(p, t), 0.7, kExact);
  EXPECT_NEAR(macro_f1(p, t, 3), 0.6944444444444443, kExact);
  EXPECT_NEAR(mcc(p, t, 3), 0.5454545454545454, kExact);
  // A label that neither occurs nor is predicted changes nothing.
  EXPECT_NEAR(macro_f1(p, t, 5), 0.6944444444444443, kExact);
  EXPECT_NEAR(mcc(p, t, 5), 0.5454545454545454, kExact);
  // f1_score([0,0,1,1],[0,1,1,1],average="macro"), matthews_corrcoef([0,0,1,1],[0,1,1,1])
  EXPECT_NEAR(macro_f1(ints({0, 1, 1, 1}), ints({0, 0, 1, 1}), 2), 0.7333333333333334, kExact);
  EXPECT_NEAR(mcc(ints({0, 1, 1, 1}), ints({0, 0, 1, 1}), 2), 0.5773502691896258, kExact);
  EXPECT_EQ(mcc(ints({1, 1, 1}), ints({0, 1, 1}), 2), 0) << "undefined: one class predicted";
  // One that is predicted and never occurs counts with F1 0: by hand (2/3 + 0) / 2.
  EXPECT_NEAR(macro_f1(ints({0, 1}), ints({0, 0}), 2), 1.0 / 3, kExact);
}

// s=[0.1,0.4,0.4,0.4,0.8,0.8,0.2,0.9]; y=[0,0,1,1,1,0,0,1]; roc_auc_score(y,s)
TEST(Metrics, AurocCountsTiesHalf) {
  EXPECT_NEAR(auroc(doubles({0.1, 0.4, 0.4, 0.4, 0.8, 0.8, 0.2, 0.9}), ints({0, 0, 1, 1, 1, 0, 0, 1})), 0.78125,
              kExact);
  EXPECT_NEAR(auroc(doubles({3, 3, 3}), ints({0, 1, 1})), 0.5, kExact);
  EXPECT_TRUE(std::isnan(auroc(doubles({1, 2}), ints({1, 1}))));
  EXPECT_TRUE(std::isnan(auroc(doubles({1, 2}), ints({0, 0}))));
}

// S=[[.7,.2,.1],[.2,.5,.3],[.3,.4,.3],[.2,.2,.6],[.5,.3,.2],[.1,.3,.6]]; Y=[0,1,0,2,1,2]
// roc_auc_score(Y,S,multi_class="ovr",average="macro")
TEST(Metrics, MacroAurocIsOneAgainstTheRest) {
  const auto S = doubles({.7, .2, .1, .2, .5, .3, .3, .4, .3, .2, .2, .6, .5, .3, .2, .1, .3, .6}).view({6, 3});
  EXPECT_NEAR(macro_auroc(S, ints({0, 1, 0, 2, 1, 2})), 0.8958333333333334, kExact);
  const auto hot = torch::one_hot(ints({0, 1, 0, 2, 1, 2}), 3);
  EXPECT_NEAR(macro_auroc(S, hot), 0.8958333333333334, kExact);
}

// a=[1.0,2.5,2.5,4.0,-1.0,0.5]; b=[0.5,2.0,3.5,3.0,0.0,0.5]; pearsonr(a,b)[0], spearmanr(a,b)[0]
TEST(Metrics, CorrelationsAsScipyHasThem) {
  const auto a = doubles({1.0, 2.5, 2.5, 4.0, -1.0, 0.5}), b = doubles({0.5, 2.0, 3.5, 3.0, 0.0, 0.5});
  EXPECT_NEAR(pearson(a, b), 0.8834774257301736, kExact);
  EXPECT_NEAR(spearman(a, b), 0.8823529411764706, kExact);
  EXPECT_EQ(pearson(a, torch::ones({6})), 0) << "undefined: no variance";
}

// f1_score([[1,0,1],[0,1,1],[0,0,0]], [[1,1,0],[0,1,1],[0,0,1]], average="micro")
TEST(Metrics, MicroF1OverAllLabels) {
  EXPECT_NEAR(micro_f1(ints({1, 1, 0, 0, 1, 1, 0, 0, 1}).view({3, 3}), ints({1, 0, 1, 0, 1, 1, 0, 0, 0}).view({3, 3})),
              0.6666666666666666, kExact);
  EXPECT_EQ(micro_f1(torch::zeros({2, 2}), torch::zeros({2, 2})), 0);
}

// from seqeval.metrics import f1_score
// t=[["B-PER","I-PER","O","B-LOC"],["O","B-LOC","I-LOC","I-LOC"],["I-PER","I-LOC","O","B-PER"]]
// p=[["B-PER","I-PER","O","B-PER"],["O","B-LOC","I-LOC","O"],["B-PER","I-LOC","O","B-PER"]]
// f1_score(t,p)
TEST(Metrics, EntityF1AsSeqevalCounts) {
  const std::vector<std::vector<std::string>> t{
      {"B-PER", "I-PER", "O", "B-LOC"}, {"O", "B-LOC", "I-LOC", "I-LOC"}, {"I-PER", "I-LOC", "O", "B-PER"}};
  const std::vector<std::vector<std::string>> p{
      {"B-PER", "I-PER", "O", "B-PER"}, {"O", "B-LOC", "I-LOC", "O"}, {"B-PER", "I-LOC", "O", "B-PER"}};
  EXPECT_NEAR(entity_f1(p, t), 0.6666666666666666, kExact);
  EXPECT_EQ(entity_f1({{"B-A", "B-A"}}, {{"B-A", "I-A"}}), 0) << "a B- begins another of the same kind";
  EXPECT_EQ(entity_f1({{"I-A", "I-A"}}, {{"B-A", "I-A"}}), 1) << "an I- without a B- begins one";
  EXPECT_EQ(entity_f1({{"O"}}, {{"O"}}), 0);
  EXPECT_EQ(entity_f1(t, t), 1);
}

Predictions classes(const std::vector<int64_t>& predicted, const std::vector<int64_t>& target, int64_t K) {
  return {.task = "classification",
          .scores = torch::one_hot(ints(predicted), K).to(torch::kFloat32),
          .targets = ints(target)};
}

TEST(Metrics, OfChosenExamplesCountRepetitions) {
  const auto p = classes({0, 1, 1}, {0, 1, 0}, 2);
  EXPECT_NEAR(metric_of("accuracy", p), 2.0 / 3, kExact);
  EXPECT_NEAR(metric_of("accuracy", p, {2, 2, 0, 1}), 0.5, kExact);
  Predictions words{
      .task = "tokens", .token_predicted = {{0, 1}, {1}}, .token_target = {{0, 0}, {1}}, .label_names = {"O", "B-X"}};
  EXPECT_NEAR(metric_of("accuracy", words), 2.0 / 3, kExact);
  EXPECT_NEAR(metric_of("accuracy", words, {0, 0, 1}), 3.0 / 5, kExact);
  EXPECT_NEAR(metric_of("entity_f1", words), 2.0 / 3, kExact);  // 1 hit, 2 predicted, 1 there
  Predictions one{.task = "masked_lm", .loss = std::log(7)};
  EXPECT_NEAR(metric_of("perplexity", one), 7, 1e-12);
}

TEST(Metrics, MultilabelAndRegressionReadTheirScores) {
  Predictions several{.task = "multilabel",
                      .scores = doubles({1, -1, 2, -2, 3, 4}).view({2, 3}),
                      .targets = doubles({1, 0, 0, 0, 1, 1}).view({2, 3})};
  EXPECT_NEAR(metric_of("micro_f1", several), 6.0 / 7, kExact);  // 3 hits, 4 predicted, 3 there
  Predictions values{.task = "regression", .scores = doubles({1, 2, 3}).view({3, 1}), .targets = doubles({2, 4, 5})};
  EXPECT_NEAR(metric_of("spearman", values), 1, kExact);
  EXPECT_NEAR(metric_of("pearson", values), 0.9819805060619656, 1e-9);  // 3 / sqrt(2 * 14/3)
}

TEST(Metrics, TheDefaultFollowsTheTaskAndTheLargestClass) {
  EXPECT_EQ(default_metric(classes({}, {0, 0, 0, 1, 1}, 2)), "accuracy") << "60 % is not over 60 %";
  EXPECT_EQ(default_metric(classes({}, {0, 0, 0, 0, 0, 1, 1}, 2)), "macro_f1");
  EXPECT_EQ(default_metric({.task = "multilabel"}), "micro_f1");
  EXPECT_EQ(default_metric({.task = "regression"}), "pearson");
  EXPECT_EQ(default_metric({.task = "tokens", .label_names = {"O", "B-X", "I-X"}}), "entity_f1");
  EXPECT_EQ(default_metric({.task = "tokens", .label_names = {"noun", "verb"}}), "accuracy");
}

TEST(Metrics, AllMetricsHaveNullWhereOneIsUndefined) {
  const auto metrics = all_metrics(classes({0, 0}, {0, 0}, 2));
  EXPECT_TRUE(metrics.at("auroc").is_null());
  EXPECT_EQ(metrics.at("accuracy"), 1.0);
  for (const auto& name : metric_names("classification")) EXPECT_TRUE(metrics.contains(name)) << name;
  const auto words =
      all_metrics({.task = "tokens", .token_predicted = {{0}}, .token_target = {{0}}, .label_names = {"noun", "verb"}});
  EXPECT_FALSE(words.contains("entity_f1")) << "no entities in these labels";
}

TEST(Bootstrap, IsAFunctionOfItsSeed) {
  std::vector<int64_t> predicted(200, 0), target(200, 0);
  for (int64_t i = 0; i < 60; ++i) predicted[i] = 1;
  const auto p = classes(predicted, target, 2);
  const auto of = [&](uint64_t seed) {
    return bootstrap(200, seed, [&](const auto& sample) { return metric_of("accuracy", p, sample); });
  };
  const auto a = of(1), again = of(1), b = of(2);
  EXPECT_EQ(a.lower, again.lower);
  EXPECT_EQ(a.upper, again.upper);
  EXPECT_EQ(a.standard_error, again.standard_error);
  EXPECT_NE(a.standard_error, b.standard_error);
  // A mean of 200 draws with probability 0.7: the binomial's standard error, and 1.96 of them to each side.
  const double error = std::sqrt(0.7 * 0.3 / 200);
  EXPECT_NEAR(a.standard_error, error, 0.1 * error);
  EXPECT_NEAR(a.lower, 0.7 - 1.96 * error, 0.015);
  EXPECT_NEAR(a.upper, 0.7 + 1.96 * error, 0.015);
}

TEST(Bootstrap, LeavesOutSamplesWithoutAValue) {
  int64_t calls = 0;
  const auto interval = bootstrap(
      4, 1, [&](const auto&) { return ++calls % 2 ? NAN : 5.0; }, 10);
  EXPECT_EQ(calls, 10);
  EXPECT_EQ(interval.lower, 5);
  EXPECT_EQ(interval.upper, 5);
  EXPECT_EQ(interval.standard_error, 0);
}

}  // namespace
}  // namespace graft::train
