#include "graft/nn/layers.h"

#include "graft/core/error.h"
#include "graft/nn/fresh.h"
#include "graft/nn/half_weights.h"
#include "graft/nn/linear.h"

namespace graft::nn {
namespace {
constexpr double kInitializerRange = 0.02;  // transformers' default for every family here
}

void Attachable::attach(std::shared_ptr<Adapter> adapter) {
  GRAFT_ASSERT(!adapter_, "a layer carries one adapter");
  adapter_ = register_module("adapter", std::move(adapter));
}

Tensor Attachable::attached(const Tensor& input, Tensor output) const {
  if (adapter_) output = adapter_->apply(input, output);
  if (tap) tap->record(input, output);
  return output;
}

LinearImpl::LinearImpl(int64_t in, int64_t out, bool with_bias) {
  weight = register_parameter("weight", fresh_normal({out, in}, kInitializerRange));
  if (with_bias) bias = register_parameter("bias", torch::zeros({out}));
}

Tensor LinearImpl::forward(const Tensor& x) { return attached(x, nn::linear(x, weight, bias)); }

EmbeddingImpl::EmbeddingImpl(int64_t rows, int64_t width, std::optional<int64_t> padding_id)
    : padding_id(padding_id.value_or(-1)) {
  weight = register_parameter("weight", torch::empty({rows, width}));
  draw_fresh(weight, [padding_id](Tensor& table) {
    table.normal_(0, kInitializerRange);
    if (padding_id) table[*padding_id].zero_();
  });
}

Tensor EmbeddingImpl::forward(const Tensor& ids) {
  return attached(ids, weight.scalar_type() == torch::kBFloat16 ? widened_embedding(weight, ids, padding_id)
                                                                : torch::embedding(weight, ids, padding_id));
}

LayerNormImpl::LayerNormImpl(int64_t width, double eps) : eps(eps) {
  weight = register_parameter("weight", torch::ones({width}));
  bias = register_parameter("bias", torch::zeros({width}));
}

Tensor LayerNormImpl::forward(const Tensor& x) {
  return attached(x, torch::layer_norm(x, {weight.size(0)}, weight, bias, eps));
}

}  // namespace graft::nn
