// The scores against plain numpy (scores_reference.py), against what must hold of them, and on degenerate input.
#include "graft/select/scores.h"

#include <gtest/gtest.h>
#include <torch/types.h>

#include <cmath>
#include <functional>

#include "graft/core/error.h"
#include "graft/core/json.h"
#include "tests/fixtures.h"

namespace graft::select {
namespace {

using Score = std::function<double(const Tensor&, const Tensor&)>;

const std::map<std::string, Score>& scores() {
  static const std::map<std::string, Score> kAll{
      {"log_me", log_me},
      {"h_score", h_score},
      {"trans_rate", [](const Tensor& f, const Tensor& y) { return trans_rate(f, y); }},
      {"parc", parc},
      {"nearest_neighbours", [](const Tensor& f, const Tensor& y) { return nearest_neighbours(f, y); }},
      {"linear_probe", [](const Tensor& f, const Tensor& y) { return linear_probe(f, y); }}};
  return kAll;
}

Tensor vector_of(const Json& values) { return torch::tensor(values.get<std::vector<double>>(), torch::kDouble); }

Tensor labels_of(int64_t n, int64_t classes) { return torch::arange(n, torch::kLong) % classes; }

std::string message(const std::function<double()>& score) {
  return tests::message_of([&] { score(); });
}

TEST(Scores, EqualPlainNumpy) {
  for (const auto& entry : Json::parse(tests::read_text(tests::fixture("select/scores_reference.json")))) {
    const auto n = entry["n"].get<int64_t>();
    const auto features = vector_of(entry["features"]).reshape({n, -1});
    const auto probabilities = vector_of(entry["probabilities"]).reshape({n, -1});
    const auto labels = torch::tensor(entry["labels"].get<std::vector<int64_t>>(), torch::kLong);
    auto found = Json::object();
    for (const auto& [name, score] : scores()) found[name] = score(features, labels);
    found["log_me_regression"] = log_me_regression(features, vector_of(entry["targets"]));
    found["leep"] = leep(probabilities, labels);
    found["nce"] = nce(probabilities, labels);
    for (const auto& item : entry["scores"].items()) {
      const auto expected = item.value().get<double>();
      EXPECT_NEAR(found[item.key()].get<double>(), expected, 1e-6 * std::max(1.0, std::abs(expected))) << item.key();
    }
  }
}

TEST(Scores, FeaturesThatTellTheClassesScoreMore) {
  torch::manual_seed(1);
  const auto labels = labels_of(120, 3);
  const auto noise = torch::randn({120, 8});
  auto telling = noise.clone();
  telling.slice(1, 0, 3) += 3 * torch::one_hot(labels, 3);
  for (const auto& [name, score] : scores()) EXPECT_GT(score(telling, labels), score(noise, labels)) << name;
  // Labels that have nothing to do with the features.
  const auto shuffled = labels.index({torch::randperm(120)});
  for (const auto& [name, score] : scores()) EXPECT_GT(score(telling, labels), score(telling, shuffled)) << name;
}

TEST(Scores, AnOrderOfTheExamplesOrADirectionOfTheSpaceChangesNothing) {
  torch::manual_seed(2);
  const auto features = torch::randn({60, 5}, torch::kDouble);
  const auto labels = labels_of(60, 3);
  const auto order = torch::randperm(60);
  const auto rotation = std::get<0>(at::linalg_qr(torch::randn({5, 5}, torch::kDouble)));
  for (const auto& [name, score] : scores()) {
    if (name == "linear_probe") continue;  // its parts follow the order, and it standardises each dimension
    const auto value = score(features, labels);
    EXPECT_NEAR(score(features.index({order}), labels.index({order})), value, 1e-9) << name;
    if (name == "parc") continue;  // the correlation of two examples is not one of vectors in space
    EXPECT_NEAR(score(features.matmul(rotation), labels), value, 1e-9) << name;
  }
  EXPECT_NEAR(h_score(features * 7, labels), h_score(features, labels), 1e-9);
}

TEST(Scores, DegenerateFeaturesGiveFiniteNumbers) {
  torch::manual_seed(3);
  const auto labels = labels_of(20, 2);
  const auto ordinary = torch::randn({20, 4});
  auto doubled = torch::cat({ordinary, ordinary}, 1);
  auto part_constant = ordinary.clone();
  part_constant.select(1, 1).fill_(5);
  const std::map<std::string, Tensor> cases{{"all zero", torch::zeros({20, 4})},
                                            {"constant", torch::full({20, 4}, 3.3)},
                                            {"one dimension", torch::randn({20, 1})},
                                            {"more dimensions than examples", torch::randn({20, 200})},
                                            {"the same dimension twice", doubled},
                                            {"a constant dimension", part_constant},
                                            {"huge", ordinary * 1e12},
                                            {"tiny", ordinary * 1e-12},
                                            {"the labels themselves", torch::one_hot(labels, 2).to(torch::kFloat)},
                                            {"two points", labels.unsqueeze(1).to(torch::kFloat).repeat({1, 3})}};
  for (const auto& [what, features] : cases)
    for (const auto& [name, score] : scores())
      EXPECT_TRUE(std::isfinite(score(features, labels))) << name << " on features that are " << what;
  EXPECT_EQ(h_score(cases.at("constant"), labels), 0);
  EXPECT_TRUE(std::isfinite(log_me_regression(ordinary, torch::zeros({20}))));
  EXPECT_TRUE(std::isfinite(log_me_regression(torch::zeros({20, 3}), torch::randn({20}))));
  // A source that is sure, and wrong for one example: no infinity.
  auto sure = torch::one_hot(labels, 3).to(torch::kDouble);
  EXPECT_NEAR(leep(sure, labels), 0, 1e-12);
  EXPECT_NEAR(nce(sure, labels), 0, 1e-12);
}

TEST(Scores, OneExampleInAClass) {
  torch::manual_seed(4);
  auto labels = torch::zeros({12}, torch::kLong);
  labels[3] = 1;
  const auto features = torch::randn({12, 3});
  for (const auto& [name, score] : scores()) {
    if (name == "linear_probe") continue;
    EXPECT_TRUE(std::isfinite(score(features, labels))) << name;
  }
  EXPECT_NE(message([&] {
              return linear_probe(features, labels);
            }).find("the smallest class has 1 examples, 5 are needed for 5 parts"),
            std::string::npos);
}

TEST(Scores, WhatCannotBeScoredIsRefused) {
  const auto features = torch::randn({6, 3});
  const auto labels = labels_of(6, 2);
  const auto expect = [](const std::string& text, const std::string& part) {
    EXPECT_NE(text.find(part), std::string::npos) << text;
  };
  for (const auto& [name, score] : scores()) {
    expect(message([&] { return score(features, torch::zeros({6}, torch::kLong)); }), "one class only");
    expect(message([&] { return score(features, labels * 2); }), "a class has no example");
    expect(message([&] { return score(features, labels - 1); }), "counted from 0");
    expect(message([&] { return score(features, labels.slice(0, 0, 5)); }), "expected 6 whole numbers");
    expect(message([&] { return score(features / 0, labels); }), "not finite");
    expect(message([&] { return score(features.flatten(), labels); }), "expected a matrix");
  }
  expect(message([&] { return leep(features, labels); }), "sum to 1");
  expect(message([&] { return log_me_regression(features, torch::randn({5})); }), "expected 6 rows");
  expect(message([&] { return nearest_neighbours(features, labels, 6); }), "too few for k = 6");
}

}  // namespace
}  // namespace graft::select
