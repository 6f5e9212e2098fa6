#include "graft/nn/linear.h"

#include <ATen/Version.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/custom_function.h>

#include "graft/nn/autocast.h"
#include "graft/nn/half_weights.h"

namespace graft::nn {
namespace {

using torch::Tensor;

// Below this many multiplications starting oneDNN costs more than it gains.
constexpr int64_t kLarge = 1 << 22;

/// x (..., in) weight (out, in), any strides -> (..., out), without gradient.
Tensor product(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias) {
  using Signature = Tensor(const Tensor&, const Tensor&, const std::optional<Tensor>&, std::string_view,
                           c10::List<std::optional<at::Scalar>>, std::optional<std::string_view>);
  static const auto operation =
      c10::Dispatcher::singleton().findSchemaOrThrow("mkldnn::_linear_pointwise", "").typed<Signature>();
  return operation.call(x, weight, bias, "none", c10::List<std::optional<at::Scalar>>(), "");
}

struct OneDnnLinear : torch::autograd::Function<OneDnnLinear> {
  static Tensor forward(torch::autograd::AutogradContext* context, const Tensor& x, const Tensor& weight,
                        const std::optional<Tensor>& bias) {
    context->save_for_backward({x, weight});
    context->saved_data["bias"] = bias.has_value();
    return product(x, weight, bias);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list gradients) {
    const auto saved = context->get_saved_variables();
    const auto &x = saved[0], &weight = saved[1];
    const auto gradient = gradients[0].contiguous();
    const auto rows = gradient.view({-1, weight.size(0)});
    Tensor of_x, of_weight, of_bias;
    if (context->needs_input_grad(0)) of_x = product(gradient, weight.t(), std::nullopt);
    if (context->needs_input_grad(1)) of_weight = product(rows.t(), x.reshape({-1, weight.size(1)}).t(), std::nullopt);
    if (context->saved_data["bias"].toBool() && context->needs_input_grad(2)) of_bias = rows.sum(0);
    return {of_x, of_weight, of_bias};
  }
};

}  // namespace

bool multiplies_by_onednn() {
  static const bool onednn = at::hasMKLDNN() && at::get_cpu_capability() == "AVX512" && !__builtin_cpu_is("intel");
  return onednn;
}

Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  if (must_widen(x, weight)) return widened_linear(x, weight, bias);
  const auto plain = [](const Tensor& t) { return t.device().is_cpu() && t.scalar_type() == torch::kFloat32; };
  if (!multiplies_by_onednn() || !plain(x) || !plain(weight) || x.numel() * weight.size(0) < kLarge || x.dim() < 2 ||
      under_autocast(torch::kCPU) || !at::globalContext().userEnabledMkldnn())
    return torch::linear(x, weight, bias);
  const auto optional_bias = bias.defined() ? std::optional(bias) : std::nullopt;
  return OneDnnLinear::apply(x, weight, optional_bias);
}

}  // namespace graft::nn
