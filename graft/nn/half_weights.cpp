#include "graft/nn/half_weights.h"

#include <torch/csrc/autograd/custom_function.h>

#include "graft/nn/autocast.h"
#include "graft/nn/linear.h"

namespace graft::nn {
namespace {

using torch::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct WidenedLinear : torch::autograd::Function<WidenedLinear> {
  static Tensor forward(AutogradContext* context, const Tensor& x, const Tensor& weight,
                        const std::optional<Tensor>& bias) {
    context->save_for_backward({x, weight});
    context->saved_data["bias"] = bias.has_value();
    return nn::linear(x, weight.to(x.scalar_type()), bias.value_or(Tensor()));
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const auto saved = context->get_saved_variables();
    const auto &x = saved[0], &weight = saved[1];
    const auto gradient = gradients[0].contiguous();
    const auto rows = gradient.view({-1, weight.size(0)});
    Tensor of_x, of_weight, of_bias;
    if (context->needs_input_grad(0)) of_x = nn::linear(gradient, weight.to(gradient.scalar_type()).t(), Tensor());
    if (context->needs_input_grad(1))
      of_weight = nn::linear(rows.t(), x.reshape({-1, weight.size(1)}).t(), Tensor()).to(weight.scalar_type());
    if (context->saved_data["bias"].toBool() && context->needs_input_grad(2)) of_bias = rows.sum(0);
    return {of_x, of_weight, of_bias};
  }
};

struct WidenedEmbedding : torch::autograd::Function<WidenedEmbedding> {
  static Tensor forward(AutogradContext* context, const Tensor& weight, const Tensor& ids, int64_t padding_id) {
    context->save_for_backward({ids});
    context->saved_data["rows"] = weight.size(0);
    context->saved_data["padding_id"] = padding_id;
    context->saved_data["type"] = static_cast<int64_t>(weight.scalar_type());
    return torch::embedding(weight, ids).to(torch::kFloat32);
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    if (!context->needs_input_grad(0)) return {Tensor(), Tensor(), Tensor()};
    const auto ids = context->get_saved_variables()[0];
    const auto of_weight =
        at::embedding_dense_backward(gradients[0].contiguous(), ids, context->saved_data["rows"].toInt(),
                                     context->saved_data["padding_id"].toInt(), false);
    return {of_weight.to(static_cast<torch::ScalarType>(context->saved_data["type"].toInt())), Tensor(), Tensor()};
  }
};

}  // namespace

bool must_widen(const Tensor& x, const Tensor& weight) {
  return weight.scalar_type() == torch::kBFloat16 && x.scalar_type() == torch::kFloat32 && !under_autocast(x.device());
}

Tensor widened_linear(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  return WidenedLinear::apply(x, weight, bias.defined() ? std::optional(bias) : std::nullopt);
}

Tensor widened_embedding(const Tensor& weight, const Tensor& ids, int64_t padding_id) {
  return WidenedEmbedding::apply(weight, ids, padding_id);
}

}  // namespace graft::nn
