#include "graft/nn/chunked_cross_entropy.h"

#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "graft/nn/half_weights.h"
#include "graft/nn/linear.h"

namespace graft::nn {
namespace {

using torch::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::tensor_list;

constexpr int64_t kChunkValues = int64_t{1} << 24;

/// Once for all chunks.
Tensor widened(const Tensor& hidden, const Tensor& weight) {
  return must_widen(hidden, weight) ? weight.to(hidden.scalar_type()) : weight;
}

/// The gradient of a sum is known before what follows it: each chunk leaves its gradient behind and is forgotten.
struct Chunked : torch::autograd::Function<Chunked> {
  static Tensor forward(AutogradContext* context, const Tensor& hidden, const Tensor& kept_weight,
                        const std::optional<Tensor>& bias, const Tensor& labels, int64_t chunk_rows, bool learns) {
    const auto rows = hidden.size(0);
    const bool hidden_learns = learns && hidden.requires_grad(), weight_learns = learns && kept_weight.requires_grad(),
               bias_learns = learns && bias && bias->requires_grad();
    const auto weight = widened(hidden, kept_weight);
    auto sum = torch::zeros({}, hidden.options().dtype(torch::kFloat32));
    Tensor of_hidden = hidden_learns ? torch::empty_like(hidden) : Tensor(),
           of_weight = weight_learns ? torch::zeros_like(weight) : Tensor(),
           of_bias = bias_learns ? torch::zeros_like(*bias, torch::kFloat32) : Tensor();
    for (int64_t start = 0; start < rows; start += chunk_rows) {
      const auto n = std::min(chunk_rows, rows - start);
      const auto x = hidden.narrow(0, start, n);
      const auto label = labels.narrow(0, start, n).unsqueeze(1);
      const auto counts = label.ge(0);
      auto log_p = nn::linear(x, weight, bias.value_or(Tensor())).to(torch::kFloat32).log_softmax(1);  // (n, V)
      const auto target = label.clamp_min(0);
      sum -= log_p.gather(1, target).mul(counts).sum();
      if (!hidden_learns && !weight_learns && !bias_learns) continue;
      // softmax - onehot, 0 in rows that do not count
      auto of_logits = log_p.exp_().scatter_add_(1, target, torch::full_like(target, -1, log_p.options()));
      of_logits.mul_(counts);
      if (bias_learns) of_bias += of_logits.sum(0);
      if (hidden_learns)
        of_hidden.narrow(0, start, n).copy_(nn::linear(of_logits.to(weight.scalar_type()), weight.t(), Tensor()));
      if (weight_learns)
        of_weight += nn::linear(of_logits.to(weight.scalar_type()).t(), x.to(weight.scalar_type()).t(), Tensor());
    }
    if (weight_learns) of_weight = of_weight.to(kept_weight.scalar_type());
    if (bias_learns) of_bias = of_bias.to(bias->scalar_type());
    context->save_for_backward({of_hidden, of_weight, of_bias});
    return sum;
  }

  static tensor_list backward(AutogradContext* context, tensor_list gradients) {
    const auto saved = context->get_saved_variables();
    const auto scaled = [&](const Tensor& x) { return x.defined() ? x * gradients[0].to(x.scalar_type()) : Tensor(); };
    return {scaled(saved[0]), scaled(saved[1]), scaled(saved[2]), {}, {}, {}};
  }
};

}  // namespace

Tensor chunked_cross_entropy(const Tensor& hidden, const Tensor& weight, const Tensor& labels, int64_t chunk_rows,
                             const Tensor& bias) {
  if (chunk_rows <= 0) chunk_rows = std::max<int64_t>(1, kChunkValues / weight.size(0));
  return Chunked::apply(hidden, weight, bias.defined() ? std::optional(bias) : std::nullopt, labels, chunk_rows,
                        torch::GradMode::is_enabled());
}

Tensor chunked_losses(const Tensor& hidden, const Tensor& weight, const Tensor& labels, int64_t chunk_rows) {
  const torch::NoGradGuard no_grad;
  if (chunk_rows <= 0) chunk_rows = std::max<int64_t>(1, kChunkValues / weight.size(0));
  const auto wide = widened(hidden, weight);
  std::vector<Tensor> losses;
  for (int64_t start = 0; start < hidden.size(0); start += chunk_rows) {
    const auto n = std::min(chunk_rows, hidden.size(0) - start);
    const auto label = labels.narrow(0, start, n).unsqueeze(1);
    const auto log_p = nn::linear(hidden.narrow(0, start, n), wide, Tensor()).to(torch::kFloat32).log_softmax(1);
    losses.push_back(-(log_p.gather(1, label.clamp_min(0)) * label.ge(0)).squeeze(1));
  }
  return torch::cat(losses);
}

}  // namespace graft::nn
