// Adapters and taps on every layer type, in a layer alone and in a whole model; attention with nothing to compute.
#include "graft/nn/layers.h"

#include <gtest/gtest.h>

#include "graft/nn/attention.h"
#include "graft/nn/convolution.h"
#include "tests/fixtures.h"
#include "tests/models/cases.h"

namespace graft::nn {
namespace {

using namespace tests;

/// output + scale, a parameter of its own; sees the input's first dimension.
struct Shift final : Adapter {
  explicit Shift(int64_t width) { scale = register_parameter("scale", torch::full({width}, 0.5)); }
  Tensor apply(const Tensor& input, const Tensor& output) override {
    rows = input.size(0);
    return output + (output.dim() == 4 ? scale.view({1, -1, 1, 1}) : scale);  // of each channel
  }
  Tensor joined(const Tensor& weight) const override { return weight; }  // a shift is of no weight
  Tensor scale;
  int64_t rows = -1;
};

struct Record final : Tap {
  void record(const Tensor& x, const Tensor& y) override {
    input = x;
    output = y;
    if (y.requires_grad()) y.register_hook([this](const Tensor& g) { gradient = g; });
  }
  Tensor input, output, gradient;
};

template <class Holder>
void expect_attachable(Holder layer, const Tensor& input, int64_t width) {
  const auto plain = layer(input).detach();
  const auto adapter = std::make_shared<Shift>(width);
  const auto tap = std::make_shared<Record>();
  layer->attach(adapter);
  layer->tap = tap;
  const auto y = layer(input);
  EXPECT_TRUE(same(y, plain + 0.5));
  EXPECT_EQ(adapter->rows, input.size(0));
  EXPECT_TRUE(layer->named_parameters().contains("adapter.scale"));
  EXPECT_TRUE(same(tap->input, input));
  EXPECT_TRUE(same(tap->output, y)) << "the tap sees what the adapter gave";
  (3 * y).sum().backward();
  EXPECT_TRUE(same(tap->gradient, torch::full_like(y, 3)));
  EXPECT_TRUE(same(adapter->scale.grad(), torch::full({width}, 3.0 * y.numel() / width)));
  EXPECT_TRUE(layer->weight.grad().defined());
  EXPECT_TRUE(message_of([&] { layer->attach(std::make_shared<Shift>(width)); }).find("a layer carries one adapter") !=
              std::string::npos);
}

TEST(Layers, ALinearCarriesAnAdapterAndATap) { expect_attachable(Linear(3, 4), torch::randn({5, 3}), 4); }
TEST(Layers, AnEmbeddingCarriesAnAdapterAndATap) {
  expect_attachable(Embedding(7, 4), torch::tensor({1, 6, 1}, torch::kInt64), 4);
}
TEST(Layers, ALayerNormCarriesAnAdapterAndATap) { expect_attachable(LayerNorm(4, 1e-5), torch::randn({5, 4}), 4); }

TEST(Layers, AConvolutionCarriesAnAdapterAndATap) {
  expect_attachable(Conv2d(ConvOptions{.in = 3, .out = 4, .kernel = 3}), torch::randn({2, 3, 5, 5}), 4);
}
TEST(Layers, ABatchNormCarriesAnAdapterAndATap) {
  auto norm = BatchNorm(4);
  norm->eval();
  expect_attachable(norm, torch::randn({2, 4, 3, 3}), 4);
}

TEST(Layers, ThePaddingRowIsZeroAndGetsNoGradient) {
  Embedding table(5, 3, 2);
  EXPECT_TRUE(same(table->weight[2], torch::zeros({3})));
  table(torch::tensor({1, 2, 2, 4}, torch::kInt64)).sum().backward();
  EXPECT_TRUE(same(table->weight.grad()[2], torch::zeros({3})));
  EXPECT_TRUE(same(table->weight.grad()[4], torch::ones({3})));
}

/// An adapter on every layer of every model: it belongs to its layer's group and learns with it.
class Attached : public testing::TestWithParam<std::string> {};

TEST_P(Attached, AnAdapterOnEachLayerBelongsToItsLayersGroup) {
  Case c(GetParam());
  auto& model = *c.model;
  std::map<std::string, std::shared_ptr<Shift>> adapters;
  std::vector<std::pair<std::string, std::shared_ptr<torch::nn::Module>>> modules;
  for (const auto& item : model.named_modules("", false)) modules.push_back({item.key(), item.value()});
  for (const auto& [key, module] : modules) {
    int64_t width = 0;
    if (auto* linear = module->as<LinearImpl>()) width = linear->weight.size(0);
    if (auto* embedding = module->as<EmbeddingImpl>()) width = embedding->weight.size(1);
    if (auto* norm = module->as<LayerNormImpl>()) width = norm->weight.size(0);
    if (auto* convolution = module->as<Conv2dImpl>()) width = convolution->weight.size(0);
    if (auto* norm = module->as<BatchNormImpl>()) width = norm->weight.size(0);
    if (width == 0) continue;
    adapters[key] = std::make_shared<Shift>(width);
    std::dynamic_pointer_cast<Attachable>(module)->attach(adapters[key]);
  }
  ASSERT_FALSE(adapters.empty());
  const auto& group = model.groups.back().name;
  model.unfreeze_only({group, "head"});
  model.eval();
  const features::Feed feed(model, *c.inputs);
  const auto stream = c.stream(feed);
  stream.loss_sum(train::forward_behind(model, stream.enter({0, 1, 2}, 0), std::nullopt), {0, 1, 2}, 0).backward();
  for (const auto& [key, adapter] : adapters) {
    EXPECT_EQ(model.group_of(key + ".adapter.scale"), model.group_of(key + ".weight"));
    EXPECT_GE(adapter->rows, 1) << key;
    EXPECT_EQ(adapter->scale.grad().defined(), model.group_of(key + ".weight") == group) << key;
  }
}

INSTANTIATE_TEST_SUITE_P(All, Attached, testing::ValuesIn(case_names()),
                         [](const auto& info) { return test_name(info.param); });

/// softmax(q k^T / sqrt(D)) v of one example and head by head, written out.
Tensor attention_of_one(const Tensor& q, const Tensor& k, const Tensor& v, int64_t heads) {
  std::vector<Tensor> parts;
  const auto D = q.size(1) / heads;
  for (int64_t h = 0; h < heads; ++h) {
    const auto at = [&](const Tensor& x) { return x.narrow(1, h * D, D); };
    parts.push_back(torch::softmax(at(q).mm(at(k).t()) / std::sqrt(static_cast<double>(D)), 1).mm(at(v)));
  }
  return torch::cat(parts, 1);
}

TEST(Attention, EachExampleSeesItsOwnRowsOnly) {
  torch::manual_seed(1);
  const std::vector<int64_t> query_lengths{1, 2, 0, 2, 1}, lengths{3, 2, 4, 2, 1};
  const auto q = torch::randn({6, 8}).requires_grad_(), k = torch::randn({12, 8}).requires_grad_(),
             v = torch::randn({12, 8}).requires_grad_();
  const auto mixed = attention(q, k, v, query_lengths, lengths, 2, 0);
  std::vector<Tensor> expected;
  for (int64_t i = 0, a = 0, b = 0; i < 5; a += query_lengths[i], b += lengths[i], ++i)
    if (query_lengths[i] > 0)
      expected.push_back(attention_of_one(q.narrow(0, a, query_lengths[i]), k.narrow(0, b, lengths[i]),
                                          v.narrow(0, b, lengths[i]), 2));
  EXPECT_LE(relative_difference(mixed, torch::cat(expected)), 1e-6);
  mixed.square().sum().backward();
  EXPECT_TRUE(same(k.grad().narrow(0, 5, 4), torch::zeros({4, 8}))) << "the third example is not asked";
  EXPECT_GT(k.grad().narrow(0, 0, 3).abs().max().item<double>(), 0);
}

}  // namespace
}  // namespace graft::nn
