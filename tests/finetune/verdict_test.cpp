// The verdict on the features, on predictions made up for each of its three words.
#include "graft/finetune/verdict.h"

#include <gtest/gtest.h>

namespace graft::finetune {
namespace {

using torch::Tensor;
using train::Predictions;

constexpr int64_t kExamples = 300;

/// 60 % class 0, 40 % class 1; the first `right` of each ten examples are predicted as they are, the others wrongly.
Predictions predicted(int64_t right) {
  const auto place = torch::arange(kExamples) % 10;
  const auto target = (place >= 6).to(torch::kInt64);
  // Shuffled by a factor prime to 10, so that both classes have their share of errors.
  const auto correct = (place * 7 % 10 < right).to(torch::kInt64);
  const auto label = torch::where(correct == 1, target, 1 - target);
  return {.task = "classification",
          .scores = torch::one_hot(label, 2).to(torch::kFloat32),
          .targets = target,
          .label_names = {"a", "b"}};
}

Predictions majority() { return majority_predictions(predicted(10), predicted(10)); }

TEST(Verdict, FeaturesAboveBothAreUseful) {
  const auto v = verdict("accuracy", predicted(9), majority(), predicted(7), 1);
  EXPECT_EQ(v.at("verdict"), "useful");
  EXPECT_NEAR(v.at("head").get<double>(), 0.9, 1e-9);
  EXPECT_NEAR(v.at("majority").get<double>(), 0.6, 1e-9);
  EXPECT_NEAR(v.at("random_copy").get<double>(), 0.7, 1e-9);
  EXPECT_GT(v.at("over_majority").at("lower").get<double>(), 0.2);
  EXPECT_LT(v.at("over_majority").at("lower").get<double>(), 0.3);
  EXPECT_GT(v.at("over_majority").at("upper").get<double>(), 0.3);
  EXPECT_EQ(v.at("examples"), kExamples);
  EXPECT_EQ(v.at("sentence"),
            "The features are useful: accuracy 0.900 with them, 0.700 with a random copy of the network, 0.600 by "
            "always guessing the most frequent.");
}

TEST(Verdict, FeaturesNotSurelyAboveARandomCopyAreWeak) {
  const auto equal = verdict("accuracy", predicted(9), majority(), predicted(9), 1);
  EXPECT_EQ(equal.at("verdict"), "weak");
  EXPECT_EQ(equal.at("over_random_copy").at("lower"), 0.0)
      << "equal predictions differ in no sample: above 0 is above, not at";
  EXPECT_EQ(verdict("accuracy", predicted(8), majority(), predicted(9), 1).at("verdict"), "weak");
}

TEST(Verdict, FeaturesNotAboveTheMajorityAreNot) {
  EXPECT_EQ(verdict("accuracy", majority(), majority(), predicted(1), 1).at("verdict"), "no");
  const auto v = verdict("accuracy", predicted(5), majority(), predicted(2), 1);
  EXPECT_EQ(v.at("verdict"), "no") << "though far above the random copy";
  EXPECT_TRUE(v.at("sentence").get<std::string>().starts_with("The features are not useful yet: accuracy 0.500"));
  EXPECT_FALSE(v.at("advice").get<std::string>().empty());
}

// 0.62 against 0.60 on 50 examples is chance; on many more it is not. The differences are paired.
TEST(Verdict, AGainWithinChanceIsNone) {
  const auto with = [](int64_t n, int64_t more) {
    const auto target = (torch::arange(n) % 10 >= 6).to(torch::kInt64);
    auto label = torch::zeros({n}, torch::kInt64);  // the majority's guess, but for a few that it gets wrong
    const auto wrong = target.nonzero().squeeze(1);
    label.index_fill_(0, wrong.narrow(0, 0, more), 1);
    Predictions p{.task = "classification",
                  .scores = torch::one_hot(label, 2).to(torch::kFloat32),
                  .targets = target,
                  .label_names = {"a", "b"}};
    return verdict("accuracy", p, majority_predictions(p, p), majority_predictions(p, p), 1)
        .at("verdict")
        .get<std::string>();
  };
  EXPECT_EQ(with(50, 1), "no");
  EXPECT_EQ(with(2000, 40), "useful");
}

TEST(Verdict, IsAFunctionOfItsSeed) {
  const auto of = [](uint64_t seed) { return verdict("macro_f1", predicted(8), majority(), predicted(7), seed); };
  EXPECT_EQ(of(1), of(1));
  EXPECT_NE(of(1).at("over_random_copy"), of(2).at("over_random_copy"));
}

TEST(Verdict, TheMajorityIsThatOfTraining) {
  const auto train = Predictions{
      .task = "classification", .targets = torch::tensor({1, 1, 0}, torch::kInt64), .label_names = {"a", "b"}};
  const auto to = Predictions{
      .task = "classification", .targets = torch::tensor({0, 0, 0, 1}, torch::kInt64), .label_names = {"a", "b"}};
  EXPECT_NEAR(train::metric_of("accuracy", majority_predictions(train, to)), 0.25, 1e-9);

  const Predictions words{.task = "tokens", .token_target = {{0, 2, 2}, {2, 0}}, .label_names = {"x", "y", "z"}};
  const auto guessed =
      majority_predictions(words, {.task = "tokens", .token_target = {{1}, {2, 0, 2}}, .label_names = {"x", "y", "z"}});
  EXPECT_EQ(guessed.token_predicted, (std::vector<std::vector<int64_t>>{{2}, {2, 2, 2}}));

  const Predictions values{.task = "regression", .targets = torch::tensor({1.0f, 2.0f, 6.0f})};
  const auto mean = majority_predictions(values, {.task = "regression", .targets = torch::zeros({2})});
  EXPECT_TRUE(torch::equal(mean.scores, torch::full({2, 1}, 3.0f)));

  const Predictions several{.task = "multilabel",
                            .targets = torch::tensor({1.0f, 0.0f, 1.0f, 0.0f, 1.0f, 0.0f}).view({3, 2})};
  const auto hot = majority_predictions(several, {.task = "multilabel", .targets = torch::zeros({4, 2})});
  EXPECT_TRUE(torch::equal(hot.scores > 0, torch::tensor({true, false}).expand({4, 2})));
}

}  // namespace
}  // namespace graft::finetune
