// One order out of many scores, and what it says of its certainty.
#include "graft/select/ranking.h"

#include <gtest/gtest.h>
#include <torch/types.h>

#include <cmath>

namespace graft::select {
namespace {

/// A candidate whose probe is right for `right` of 200 examples, and whose other scores follow it.
Candidate candidate(const std::string& name, int64_t right, double seconds, int64_t first = 0) {
  auto probe = torch::zeros({200}, torch::kFloat64);
  for (int64_t i = 0; i < right; ++i) probe[(first + i) % 200] = 1;
  const double share = static_cast<double>(right) / 200;
  return {name, {{{"linear_probe", share}, {"log_me", share - 2}, {"parc", 3 * share}}, probe}, seconds};
}

TEST(Ranking, TheBestByAllScoresIsFirst) {
  const auto ranked = rank({candidate("low", 110, 1), candidate("high", 180, 1), candidate("middle", 140, 1)}, 1);
  EXPECT_EQ(ranked.order, (std::vector<size_t>{1, 2, 0}));
  EXPECT_EQ(ranked.winner, 1);
  EXPECT_EQ(ranked.best_by.at("log_me"), 1);
  EXPECT_NEAR(ranked.best_share[1], 1, 1e-12);
  EXPECT_LT(ranked.lower[1], 0.9);
  EXPECT_GT(ranked.upper[1], 0.9);
  EXPECT_EQ(ranked.sentence, "high is taken; next is middle, which the data show to be worse.");
}

TEST(Ranking, TwiceAsSlowMustBeEarned) {
  const auto slow = candidate("slow", 151, 10), fast = candidate("fast", 150, 4, 1);
  auto ranked = rank({slow, fast}, 1);
  EXPECT_EQ(ranked.order.front(), 0);
  EXPECT_EQ(ranked.winner, 1) << ranked.sentence;
  EXPECT_NE(ranked.sentence.find("takes 2.5 times as long"), std::string::npos) << ranked.sentence;
  EXPECT_NE(ranked.sentence.find("By single scores it would be slow"), std::string::npos) << ranked.sentence;
  EXPECT_EQ(rank({candidate("slow", 190, 10), fast}, 1).winner, 0) << "it is clearly better";
  EXPECT_EQ(rank({candidate("slow", 151, 7), fast}, 1).winner, 0) << "it is not twice as slow";
}

TEST(Ranking, ProbesAloneDoNotMakeASourceLevel) {
  auto slow = candidate("slow", 151, 10), fast = candidate("fast", 150, 4, 1);
  for (const auto* score : {"log_me", "parc"}) slow.measured.scores[score] += 1;
  for (auto* one : {&slow, &fast})
    for (const double step : {-0.01, 0.01}) one->measured.deviations.push_back({{"log_me", step}, {"parc", step}});
  auto third = candidate("third", 100, 4);
  third.measured.deviations = slow.measured.deviations;
  EXPECT_EQ(rank({slow, fast, third}, 1).winner, 0) << "the other scores show the slow one to be better";
}

TEST(Ranking, TheCostRuleAlsoHoldsAmongTheLastOfAHalving) {
  const std::vector<Candidate> all{candidate("slow", 151, 10), candidate("fast", 150, 4, 1), candidate("poor", 20, 1)};
  auto ranked = rank(all, 1);
  EXPECT_EQ(worth_its_cost(all, ranked, 0, {0, 1, 2}), 1) << "the poor one is not level with the first";
  EXPECT_EQ(worth_its_cost(all, ranked, 0, {0}), 0);
  EXPECT_EQ(worth_its_cost(all, ranked, 1, {1, 0}), 1);
  EXPECT_TRUE(ranked.level[0][1] && ranked.level[1][0] && !ranked.level[0][2]);
  ranked.winner = 0;
  EXPECT_EQ(disagreement(all, ranked), "");
  ranked.winner = 2;
  EXPECT_EQ(disagreement(all, ranked),
            " By single scores it would be slow (linear_probe), slow (log_me), slow (parc).");
}

TEST(Ranking, TheCombinedScoreHasAnInterval) {
  std::vector<Candidate> all{candidate("a", 150, 1), candidate("b", 140, 1), candidate("c", 60, 1)};
  for (const auto value : rank(all, 1).combined_lower) EXPECT_TRUE(std::isfinite(value));
  EXPECT_EQ(rank(all, 1).combined_lower, rank(all, 1).combined_upper) << "without draws nothing is known of it";
  // Scores that move together move no candidate against the others; those that move apart do.
  for (auto& one : all)
    for (const double step : {-0.1, 0.1}) one.measured.deviations.push_back({{"log_me", step}, {"parc", step}});
  const auto together = rank(all, 1);
  all[0].measured.deviations = {{{"log_me", 0.1}, {"parc", 0.1}}, {{"log_me", -0.1}, {"parc", -0.1}}};
  const auto apart = rank(all, 1);
  for (size_t i = 0; i < all.size(); ++i) {
    EXPECT_NEAR(together.combined_lower[i], together.combined[i], 1e-9);
    EXPECT_LT(apart.combined_lower[i], apart.combined[i] - 0.01);
    EXPECT_NEAR(apart.combined_upper[i] + apart.combined_lower[i], 2 * apart.combined[i], 1e-9);
  }
}

TEST(Measure, DeviationsAreTheSpreadOfTheSample) {
  // The probe's standard error is known, and 20 draws tell it within a third.
  torch::manual_seed(4);
  const auto labels = torch::arange(400, torch::kLong) % 2;
  const auto features = torch::randn({400, 4}) + 0.8 * labels.unsqueeze(1);
  const auto m = measure(features, {.classes = labels}, {}, 1);
  ASSERT_EQ(m.deviations.size(), 20u);
  double square = 0, mean = 0;
  for (const auto& draw : m.deviations) {
    for (const auto& [name, value] : m.scores) EXPECT_EQ(draw.contains(name), counts(name)) << name;
    square += draw.at("linear_probe") * draw.at("linear_probe") / 20;
    mean += draw.at("log_me") / 20;
  }
  const double p = m.scores.at("linear_probe"), expected = std::sqrt(p * (1 - p) / 400);
  EXPECT_NEAR(std::sqrt(square) / expected, 1, 0.5);
  EXPECT_NEAR(mean, 0, 1e-12);
  EXPECT_EQ(measure(features, {.classes = labels}, {}, 1).deviations, m.deviations);
  const auto values = features.slice(1, 0, 2).to(torch::kFloat64);
  EXPECT_EQ(measure(features, {.values = values}, {}, 1).deviations.size(), 20u);
}

TEST(Ranking, AScoreThatSomeLackDecidesNothing) {
  auto with = candidate("with", 120, 1);
  with.measured.scores["leep"] = -0.1;
  const auto ranked = rank({with, candidate("without", 140, 1)}, 1);
  EXPECT_EQ(ranked.winner, 1);
  EXPECT_NEAR(ranked.combined[0] + ranked.combined[1], 0, 1e-12);
}

TEST(Ranking, AScoreThatASourceMisleadsDecidesNothing) {
  auto worse = candidate("worse", 140, 1);
  worse.measured.scores["log_me"] = 9;
  const auto ranked = rank({worse, candidate("better", 160, 1), candidate("poor", 120, 1)}, 1);
  EXPECT_EQ(ranked.order, (std::vector<size_t>{1, 0, 2}));
  EXPECT_EQ(ranked.best_by.at("log_me"), 0);
}

TEST(Ranking, TransRateAndTheHScoreAreToldAndNotCounted) {
  auto worse = candidate("worse", 120, 1);
  worse.measured.scores["trans_rate"] = 600;
  worse.measured.scores["h_score"] = 9;
  auto better = candidate("better", 180, 1);
  better.measured.scores["trans_rate"] = 0.1;
  better.measured.scores["h_score"] = 1;
  const auto ranked = rank({worse, better}, 1);
  EXPECT_EQ(ranked.winner, 1);
  EXPECT_EQ(ranked.combined, rank({candidate("worse", 120, 1), candidate("better", 180, 1)}, 1).combined);
  EXPECT_EQ(ranked.best_by.at("trans_rate"), 0);
  EXPECT_EQ(ranked.sentence.find("By single scores"), std::string::npos) << ranked.sentence;
}

TEST(Ranking, OneCandidateOrEqualOnes) {
  const auto one = rank({candidate("only", 120, 1)}, 1);
  EXPECT_EQ(one.winner, 0);
  EXPECT_EQ(one.combined[0], 0);
  const auto equal = rank({candidate("a", 120, 1), candidate("b", 120, 1)}, 1);
  EXPECT_EQ(equal.winner, 0);
  EXPECT_NE(equal.sentence.find("cannot tell"), std::string::npos);
}

TEST(Measure, GivesEveryScoreThatTheTargetsHave) {
  torch::manual_seed(1);
  const auto labels = torch::arange(90, torch::kLong) % 3;
  const auto features = torch::randn({90, 6}) + 2 * torch::one_hot(labels, 6);
  const auto names = [](const Measured& m) {
    std::string text;
    for (const auto& [name, value] : m.scores) text += name + (std::isfinite(value) ? " " : " is not finite ");
    return text;
  };
  EXPECT_EQ(names(measure(features, {.classes = labels}, {}, 1)),
            "h_score linear_probe log_me nearest_neighbours parc trans_rate ");
  const auto probabilities = torch::randn({90, 4}).softmax(1);
  EXPECT_EQ(names(measure(features, {.classes = labels}, probabilities, 1)),
            "h_score leep linear_probe log_me nce nearest_neighbours parc trans_rate ");
  const auto values = features.slice(1, 0, 2).to(torch::kFloat64) * 3 + 1;
  const auto regression = measure(features, {.values = values}, {}, 1);
  EXPECT_EQ(names(regression), "linear_probe log_me ");
  EXPECT_GT(regression.scores.at("linear_probe"), 0.99);  // the targets are a function of the features
  EXPECT_EQ(regression.probe.size(0), 90);
  EXPECT_LT(measure(torch::randn({90, 6}), {.values = values}, {}, 1).scores.at("linear_probe"), 0.2);
}

TEST(Measure, LargeSamplesAreScoredInSeconds) {
  torch::manual_seed(2);
  const auto labels = torch::randint(0, 2, {6000}, torch::kLong);
  const auto features = torch::randn({6000, 32}) + labels.unsqueeze(1);
  const auto m = measure(features, {.classes = labels}, {}, 1);
  EXPECT_GT(m.scores.at("linear_probe"), 0.9);
  EXPECT_GT(m.scores.at("nearest_neighbours"), 0.9);
}

}  // namespace
}  // namespace graft::select
