#include "graft/finetune/standardised_start.h"

#include <torch/types.h>

#include <algorithm>
#include <cmath>

#include "graft/finetune/closed_form.h"
#include "graft/nn/layers.h"
#include "graft/train/batches.h"
#include "graft/train/supervised.h"

namespace graft::finetune {
namespace {

using models::Tensor;

constexpr int64_t kMost = 2000;

/// Keeps what a layer reads, on the CPU, a row for each example.
struct Listener final : nn::Tap {
  void record(const Tensor& input, const Tensor&) override {
    read.push_back(input.detach().flatten(0, -2).to(torch::kCPU, torch::kFloat64));
  }
  std::vector<Tensor> read;
};

/// W diag(1/s) (x - m), scaled; false where the inputs are the same for all examples but for rounding.
bool standardise(nn::LinearImpl& layer, const Tensor& x) {
  const auto mean = x.mean(0), variance = x.var(0, /*unbiased=*/false);
  const double typical = variance.mean().item<double>();
  constexpr double kRounding = 1e-5;  // of what is computed in float32
  if (!(typical > kRounding * kRounding * mean.square().mean().item<double>())) return false;
  // What hardly varies at all is not blown up.
  const auto deviation = (variance + 1e-4 * typical).sqrt();
  auto weight = layer.weight.to(torch::kCPU, torch::kFloat64) / deviation;  // (out, in)
  const double out = (x - mean).matmul(weight.t()).square().mean().item<double>();
  if (!(out > 0)) return false;
  weight /= std::sqrt(out);
  layer.weight.copy_(weight);
  layer.bias.copy_(-weight.matmul(mean));
  return true;
}

}  // namespace

int64_t standardised_start(models::Model& model, const std::vector<std::string>& fresh, const train::Stream& stream,
                           int64_t batch_rows, bool bf16, uint64_t seed) {
  const auto predictions = stream.predictions();
  const auto& task = predictions.task;
  if (task != "classification" && task != "multilabel" && task != "regression") return 0;
  const torch::NoGradGuard no_grad;
  const bool training = model.is_training();
  model.train();
  const auto last = last_layer(model, predictions.scores.size(1)).first;
  const auto is_fresh = [&](const std::string& key) {
    return model.group_of(key) == "head" && std::find(fresh.begin(), fresh.end(), key) != fresh.end();
  };
  const auto examples = train::sample(stream.size(), kMost, seed);
  int64_t changed = 0;
  for (const auto& item : model.head->named_modules("", /*include_self=*/false)) {
    auto layer = std::dynamic_pointer_cast<nn::LinearImpl>(item.value());
    if (!layer || layer->tap || !layer->bias.defined() || (last.defined() && layer->weight.is_same(last))) continue;
    if (!is_fresh(item.key() + ".weight") || !is_fresh(item.key() + ".bias")) continue;
    const auto listener = std::make_shared<Listener>();
    layer->tap = listener;
    torch::manual_seed(seed);  // of dropout
    for (const auto& batch : train::micro_batches(stream, examples, batch_rows)) {
      const train::Autocast autocast(model.device(), bf16);
      train::forward_behind(model, stream.enter(batch, train::kEvaluation), std::nullopt);
    }
    layer->tap = nullptr;
    if (!listener->read.empty()) changed += standardise(*layer, torch::cat(listener->read));
  }
  model.train(training);
  return changed;
}

}  // namespace graft::finetune
