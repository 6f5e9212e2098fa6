// What decoders are made of, against plain formulas and against numbers of transformers.
#include <gtest/gtest.h>
#include <torch/nn/functional.h>

#include "graft/nn/causal_attention.h"
#include "graft/nn/chunked_cross_entropy.h"
#include "graft/nn/rms_norm.h"
#include "graft/nn/rotary.h"
#include "tests/fixtures.h"

namespace graft::nn {
namespace {

using tests::message_of;
using torch::Tensor;

double difference(const Tensor& a, const Tensor& b) { return (a - b).abs().max().item<double>(); }

// ROPE_INIT_FUNCTIONS[type](LlamaConfig(hidden_size=32, num_attention_heads=2, max_position_embeddings=64,
//   rope_parameters={"rope_theta": 10000.0, ...}), None, seq_len) of transformers 5.17
TEST(Rotary, FrequenciesEqualTransformersForEveryScaling) {
  struct Golden {
    RotaryOptions options;
    int64_t length;
    std::vector<double> frequencies;
    double attention = 1;
  };
  const std::vector<double> shorts{1, 1, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6}, longs{1, 2, 3, 4, 5, 6, 7, 8.5};
  const auto of = [](const std::string& type, double factor) {
    return RotaryOptions{
        .type = type, .width = 16, .factor = factor, .max_positions = 64, .original_max_positions = 32};
  };
  auto yarn = of("yarn", 4);
  auto yarn_all = yarn;
  yarn_all.beta_fast = 8, yarn_all.beta_slow = 2, yarn_all.truncate = false;
  yarn_all.mscale = 0.7, yarn_all.mscale_all_dim = 0.5;
  auto longrope = of("longrope", 4);
  longrope.short_factor = shorts, longrope.long_factor = longs;
  auto llama3 = of("llama3", 8);
  llama3.max_positions = 512, llama3.original_max_positions = 64;
  auto proportional = of("proportional", 2);
  proportional.turned_part = 0.5;
  const std::vector<Golden> all{
      {of("linear", 4),
       64,
       {0.25, 0.079056941, 0.025, 0.0079056947, 0.0024999999, 0.00079056947, 0.00025000001, 7.9056947e-05}},
      {of("dynamic", 2), 50, {1, 0.31622776, 0.1, 0.031622779, 0.0099999998, 0.0031622779, 0.001, 0.00031622779}},
      {of("dynamic", 2),
       200,
       {1, 0.24952847, 0.062264454, 0.015536753, 0.0038768628, 0.00096738752, 0.00024139074, 6.0233862e-05}},
      {yarn,
       64,
       {1, 0.19764236, 0.025, 0.0079056947, 0.0024999999, 0.00079056947, 0.00025000001, 7.9056947e-05},
       1.138629436111989},
      {yarn_all,
       64,
       {1, 0.079056941, 0.025, 0.0079056947, 0.0024999999, 0.00079056947, 0.00025000001, 7.9056947e-05},
       1.0259286501478284},
      {longrope,
       20,
       {1, 0.31622776, 0.090909094, 0.026352312, 0.0076923077, 0.0022587699, 0.00066666666, 0.00019764237},
       1.1832159566199232},
      {longrope,
       40,
       {1, 0.15811388, 0.033333335, 0.0079056947, 0.0020000001, 0.00052704633, 0.00014285714, 3.7203266e-05},
       1.1832159566199232},
      {llama3, 512, {1, 0.24438459, 0.013042256, 0.0039528473, 0.00125, 0.00039528473, 0.00012500001, 3.9528473e-05}},
      {proportional, 64, {0.5, 0.15811388, 0.050000001, 0.015811389, 0, 0, 0, 0}},
  };
  for (const auto& golden : all) {
    const Rotary rotary(golden.options);
    const auto found = rotary.frequencies(golden.length);
    for (int64_t i = 0; i < 8; ++i)
      EXPECT_NEAR(found[i].item<double>(), golden.frequencies[i], 2e-7 * golden.frequencies[i] + 1e-12)
          << golden.options.type << " " << golden.length << ", pair " << i;
    const auto rotation = rotary.at(torch::zeros({1}, torch::kInt64), {1});
    EXPECT_NEAR(rotation.cos[0][0][0].item<double>(), golden.attention, 1e-6) << golden.options.type;
  }
}

// Llama-3.2-1B's published numbers.
TEST(Rotary, Llama3AtItsPublishedSize) {
  const auto f = Rotary({.type = "llama3",
                         .width = 64,
                         .theta = 500000,
                         .factor = 32,
                         .max_positions = 131072,
                         .original_max_positions = 8192})
                     .frequencies(1);
  for (const auto& [i, value] : {std::pair{1, 0.6636013},
                                 {8, 0.0376060},
                                 {14, 0.00321145},
                                 {15, 0.00129055},
                                 {16, 4.29557e-4},
                                 {17, 9.70829e-5},
                                 {18, 1.94616e-5},
                                 {31, 9.41831e-8}})
    EXPECT_NEAR(f[i].item<double>(), value, 2e-6 * value) << i;
}

TEST(Rotary, AnUnknownTypeIsASentenceThatListsTheKnown) {
  const auto message = message_of([] { Rotary({.type = "spiral"}); });
  EXPECT_EQ(message,
            "config.json: the rope type `spiral` is not one that graft computes; known are default, linear, dynamic, "
            "yarn, longrope, llama3, proportional.");
  EXPECT_NE(message_of([] { Rotary({.type = "longrope", .width = 8, .short_factor = {1}}); }).find("4 values each"),
            std::string::npos);
}

TEST(Rotary, ScoresDependOnTheDistanceAlone) {
  torch::manual_seed(1);
  const Rotary rotary({.width = 8});
  const auto q = torch::randn({1, 1, 8}), k = torch::randn({1, 1, 8});
  const auto score = [&](int64_t i, int64_t j) {
    const auto turned = [&](const Tensor& x, int64_t p) { return rotate(x, rotary.at(torch::tensor({p}), {1})); };
    return (turned(q, i) * turned(k, j)).sum().item<double>();
  };
  EXPECT_NEAR(score(7, 3), score(40, 36), 1e-5);
  EXPECT_GT(std::abs(score(7, 3) - score(7, 4)), 1e-3);
}

TEST(RmsNorm, DividesByTheRootMeanSquare) {
  RmsNorm norm(4, 1e-6);
  torch::NoGradGuard no_grad;
  norm->weight.copy_(torch::tensor({1.0, 2.0, 3.0, 4.0}));
  const auto x = torch::tensor({{1.0, -1.0, 2.0, 0.0}});
  EXPECT_LT(difference(norm(x), x / std::sqrt(1.5 + 1e-6) * norm->weight), 1e-6);
}

/// Token by token, by the definition.
Tensor plain_attention(const Tensor& q, const Tensor& k, const Tensor& v, const std::vector<int64_t>& lengths,
                       const CausalOptions& o) {
  const auto D = q.size(1) / o.num_heads;
  std::vector<Tensor> rows;
  int64_t start = 0;
  for (const auto length : lengths) {
    for (int64_t i = 0; i < length; ++i) {
      const auto first = o.window > 0 ? std::max<int64_t>(0, i - o.window + 1) : 0;
      std::vector<Tensor> heads;
      for (int64_t h = 0; h < o.num_heads; ++h) {
        const auto shared = h / (o.num_heads / o.num_key_value_heads);
        const auto keys = k.narrow(0, start + first, i - first + 1).narrow(1, shared * D, D),
                   values = v.narrow(0, start + first, i - first + 1).narrow(1, shared * D, D);
        const auto p = (keys.mv(q[start + i].narrow(0, h * D, D)) / std::sqrt(static_cast<double>(D))).softmax(0);
        heads.push_back(p.unsqueeze(0).mm(values));
      }
      rows.push_back(torch::cat(heads, 1));
    }
    start += length;
  }
  return torch::cat(rows);
}

struct CausalAttention : testing::Test {
  void SetUp() override { torch::manual_seed(3); }
  const std::vector<int64_t> lengths{5, 5, 2, 9, 1};
  const int64_t N = 22;
  const CausalOptions grouped{.num_heads = 4, .num_key_value_heads = 2},
      windowed{.num_heads = 4, .num_key_value_heads = 1, .window = 3};
};

TEST_F(CausalAttention, EqualsTheDefinitionForRaggedExamplesGroupsAndWindows) {
  for (const auto& o : {grouped, windowed}) {
    const auto q = torch::randn({N, 16}), k = torch::randn({N, 4 * o.num_key_value_heads}),
               v = torch::randn({N, 4 * o.num_key_value_heads});
    const auto expected = plain_attention(q, k, v, lengths, o);
    EXPECT_LT(difference(causal_attention(q, k, v, {lengths, lengths}, o), expected), 2e-6);
    // Some rows of some examples.
    const std::vector<int64_t> asked{2, 0, 1, 3, 1};
    const auto index = torch::tensor({1, 4, 11, 13, 17, 20, 21}, torch::kInt64);
    EXPECT_LT(difference(causal_attention(q.index_select(0, index), k, v, {lengths, asked, index}, o),
                         expected.index_select(0, index)),
              2e-6);
  }
}

TEST_F(CausalAttention, ReadThroughTheCacheTokenByTokenItIsTheSame) {
  for (const auto& o : {grouped, windowed}) {
    const auto q = torch::randn({N, 16}), k = torch::randn({N, 4 * o.num_key_value_heads}),
               v = torch::randn({N, 4 * o.num_key_value_heads});
    const auto expected = plain_attention(q, k, v, lengths, o);
    // Two sequences, 5 and 9 rows long; 2 and 6 of them at once, then one by one, at last the second alone.
    const int64_t a = 0, b = 12;
    KeyValueCache cache(1, 2, 9);
    const auto rows = [&](const Tensor& x, std::vector<int64_t> which) {
      return x.index_select(0, torch::tensor(which, torch::kInt64));
    };
    const auto feed = [&](const std::vector<int64_t>& which, const std::vector<int64_t>& counts) {
      const auto out =
          causal_attention(rows(q, which), rows(k, which), rows(v, which), {counts, counts, {}, &cache, 0}, o);
      for (size_t i = 0; i < counts.size(); ++i) cache.lengths[i] += counts[i];
      return difference(out, rows(expected, which));
    };
    EXPECT_LT(feed({a, a + 1, b, b + 1, b + 2, b + 3, b + 4, b + 5}, {2, 6}), 2e-6);
    for (int64_t i = 0; i < 2; ++i) EXPECT_LT(feed({a + 2 + i, b + 6 + i}, {1, 1}), 2e-6) << i;
    cache.keep({1});
    EXPECT_LT(feed({b + 8}, {1}), 2e-6);
  }
}

TEST(ChunkedCrossEntropy, EqualsThatOfTheWholeMatrixWithItsGradients) {
  torch::manual_seed(5);
  const auto labels = torch::tensor({3, -100, 0, 10, 3, 7, -100, 1}, torch::kInt64);
  const auto run = [&](auto&& loss_of) {
    torch::manual_seed(6);
    const auto hidden = torch::randn({8, 5}).requires_grad_(), weight = torch::randn({11, 5}).requires_grad_();
    const auto loss = loss_of(hidden, weight);
    (loss / 6).backward();
    return std::vector<Tensor>{loss.detach(), hidden.grad(), weight.grad()};
  };
  namespace F = torch::nn::functional;
  const auto whole = run([&](const Tensor& x, const Tensor& w) {
    return F::cross_entropy(torch::linear(x, w), labels,
                            F::CrossEntropyFuncOptions().reduction(torch::kSum).ignore_index(-100));
  });
  for (const int64_t chunk : {0, 1, 3, 8}) {
    const auto found =
        run([&](const Tensor& x, const Tensor& w) { return chunked_cross_entropy(x, w, labels, chunk); });
    for (size_t i = 0; i < whole.size(); ++i) EXPECT_LT(difference(found[i], whole[i]), 2e-6) << chunk << " " << i;
  }
}

}  // namespace
}  // namespace graft::nn
