#include "graft/nn/disentangled_attention.h"

#include <gtest/gtest.h>
#include <torch/types.h>

namespace graft::nn {
namespace {

TEST(RelativePositions, LinearDistancesEndAtTheSpan) {
  const RelativePositions positions{.span = 3};
  EXPECT_TRUE(positions.rows(5).equal(torch::tensor({0, 0, 1, 2, 3, 4, 5, 5, 5}, torch::kInt64)));
  EXPECT_TRUE(positions.rows(1).equal(torch::tensor({3}, torch::kInt64)));
}

// Buckets of the published v3 models, from transformers' make_log_bucket_position.
TEST(RelativePositions, LogBucketsAreThoseOfTheReference) {
  const RelativePositions positions{.span = 256, .buckets = 256, .max_position = 512};
  const auto rows = positions.rows(513);
  for (const auto& [distance, bucket] : {std::pair{0, 0},
                                         {1, 1},
                                         {127, 127},
                                         {128, 128},
                                         {129, 129},
                                         {130, 130},
                                         {140, 137},
                                         {150, 143},
                                         {200, 169},
                                         {256, 192},
                                         {300, 207},
                                         {400, 233},
                                         {500, 254},
                                         {511, 255}}) {
    EXPECT_EQ(rows[distance + 512].item<int64_t>(), 256 + bucket) << distance;
    EXPECT_EQ(rows[-distance + 512].item<int64_t>(), 256 - bucket) << -distance;
  }
  EXPECT_EQ(rows[1024].item<int64_t>(), 511);  // bucket 256 is beyond the table
  EXPECT_TRUE(rows.diff().ge(0).all().item<bool>());
}

/// The same by the definition, one query and key at a time.
torch::Tensor slow(const Disentangled& x, const torch::Tensor& rows, int64_t heads, double scale) {
  const auto T = x.key.size(0), D = x.key.size(1) / heads, longest = (rows.size(0) + 1) / 2;
  auto mixed = torch::zeros_like(x.query);
  for (int64_t h = 0; h < heads; ++h) {
    const auto part = [&](const torch::Tensor& y, int64_t row) { return y[row].narrow(0, h * D, D); };
    for (int64_t q = 0; q < T; ++q) {
      auto scores = torch::zeros({T});
      for (int64_t k = 0; k < T; ++k) {
        const auto row = rows[q - k + longest - 1].item<int64_t>();
        scores[k] = (part(x.query, q).dot(part(x.key, k)) + part(x.query, q).dot(part(x.position_key, row)) +
                     part(x.key, k).dot(part(x.position_query, row))) /
                    scale;
      }
      const auto weights = torch::softmax(scores, 0);
      for (int64_t k = 0; k < T; ++k) mixed[q].narrow(0, h * D, D) += weights[k] * part(x.value, k);
    }
  }
  return mixed;
}

TEST(DisentangledAttention, IsTheDefinitionForTextsOfUnequalLengthAndForSomeQueries) {
  torch::manual_seed(3);
  const std::vector<int64_t> lengths{4, 4, 1, 6};
  const RelativePositions positions{.span = 4, .buckets = 4, .max_position = 12};
  const auto rows = positions.rows(6);
  const auto random = [](int64_t n) { return torch::randn({n, 6}); };
  const Disentangled x{random(15), random(15), random(15), random(8), random(8)};
  const auto all = disentangled_attention(x, rows, {}, lengths, lengths, 2, 3, 0);
  int64_t start = 0;
  for (const auto length : lengths) {
    const auto part = [&](const torch::Tensor& y) { return y.narrow(0, start, length); };
    const Disentangled one{part(x.query), part(x.key), part(x.value), x.position_key, x.position_query};
    EXPECT_TRUE(torch::allclose(part(all), slow(one, rows, 2, std::sqrt(9.0)), 1e-5, 1e-5)) << length;
    start += length;
  }
  const auto index = torch::tensor({1, 3, 4, 8, 9, 14}, torch::kInt64);
  auto some = x;
  some.query = x.query.index_select(0, index);
  const auto found = disentangled_attention(some, rows, index, {2, 1, 1, 2}, lengths, 2, 3, 0);
  EXPECT_TRUE(torch::allclose(found, all.index_select(0, index), 1e-5, 1e-6));
}

}  // namespace
}  // namespace graft::nn
