#include "graft/nn/dropout.h"

#include <torch/torch.h>

#include <cmath>
#include <limits>

namespace graft::nn {
namespace {

using torch::Tensor;

/// x where `kept`, times `scale`. The graph holds `kept` at a byte a value; factors of x's type would be four.
struct Dropped : torch::autograd::Function<Dropped> {
  static Tensor forward(torch::autograd::AutogradContext* context, const Tensor& x, const Tensor& kept, double scale) {
    context->save_for_backward({kept});
    context->saved_data["scale"] = scale;
    return x * kept.to(x.scalar_type()).mul_(scale);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list gradients) {
    const auto scale = context->saved_data["scale"].toDouble();
    return {at::native_dropout_backward(gradients[0], context->get_saved_variables()[0], scale), Tensor(), Tensor()};
  }
};

}  // namespace

Tensor dropout(const Tensor& x, double p, bool training) {
  if (!training || p == 0 || x.numel() == 0) return x;
  if (!x.device().is_cpu()) return torch::dropout(x, p, training);
  constexpr int64_t kLevels = 1 << 16, kValues = 4;  // of one draw
  const auto dropped = static_cast<int64_t>(std::llround(p * kLevels));
  if (dropped >= kLevels) return x * 0;
  const auto draws = torch::empty({(x.numel() + kValues - 1) / kValues}, torch::kInt64)
                         .random_(std::numeric_limits<int64_t>::min(), std::optional<int64_t>());
  const auto levels = draws.view(torch::kInt16).narrow(0, 0, x.numel()).view(x.sizes());
  const auto kept = levels.ge(std::numeric_limits<int16_t>::min() + dropped);
  return Dropped::apply(x, kept, static_cast<double>(kLevels) / static_cast<double>(kLevels - dropped));
}

}  // namespace graft::nn
