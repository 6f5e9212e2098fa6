// The path's ends and middle, and which point of it is chosen.
#include "graft/retain/interpolation.h"

#include <gtest/gtest.h>

#include "tests/models/cases.h"

namespace graft::retain {
namespace {

using namespace tests;

TEST(Interpolation, EndsAreTheWeightsThemselvesAndANewHeadStays) {
  Case a("resnet_classification", 1), b("resnet_classification", 2);
  auto from = tensors_of(*a.model);
  const auto to = tensors_of(*b.model);
  const auto head = b.model->head->named_parameters().front().key();
  from.erase(head);
  auto& model = *b.model;
  interpolate(model, from, to, 0);
  for (const auto& [key, value] : tensors_of(model)) EXPECT_TRUE(same(value, key == head ? to.at(key) : from.at(key)));
  interpolate(model, from, to, 0.25);
  for (const auto& [key, value] : tensors_of(model))
    if (key != head && value.is_floating_point()) {
      EXPECT_TRUE(torch::allclose(value, 0.75 * from.at(key) + 0.25 * to.at(key), 1e-5, 1e-6)) << key;
    }
  interpolate(model, from, to, 1);
  for (const auto& [key, value] : tensors_of(model))
    if (value.is_floating_point()) {
      EXPECT_TRUE(same(value, to.at(key))) << key;
    }
}

TEST(Interpolation, TheBudgetIsKeptAndElseTheTargetIs) {
  const std::vector<PathPoint> path{
      {0, 0.50, 0.90}, {0.25, 0.70, 0.89}, {0.5, 0.80, 0.87}, {0.75, 0.809, 0.80}, {1, 0.81, 0.60}};
  EXPECT_EQ(best_point(path, 0.002, 0.02), 1u);
  EXPECT_EQ(best_point(path, 0.002, 0.03), 2u);
  EXPECT_EQ(best_point(path, 0.002, 1.0), 4u);
  EXPECT_EQ(best_point(path, 0.002, 0.0), 0u);
  EXPECT_EQ(best_point(path, 0.002, std::nullopt), 3u) << "a point within the tolerance of the best keeps more";
  EXPECT_EQ(best_point(path, 0.0, std::nullopt), 4u);
  EXPECT_EQ(best_point({{0, 0.5, 0.9}, {0.5, 0.5, 0.9}, {1, 0.5, 0.9}}, 0, 0.1), 2u) << "ties go to the tuned model";
}

}  // namespace
}  // namespace graft::retain
