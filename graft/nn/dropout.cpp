#include "graft/nn/dropout.h"

#include <torch/torch.h>

#include <cmath>
#include <limits>

namespace graft::nn {

using torch::Tensor;

Tensor dropout(const Tensor& x, double p, bool training) {
  if (!training || p == 0 || x.numel() == 0) return x;
  if (!x.device().is_cpu()) return torch::dropout(x, p, training);
  constexpr int64_t kLevels = 1 << 16, kValues = 4;  // of one draw
  const auto dropped = static_cast<int64_t>(std::llround(p * kLevels));
  if (dropped >= kLevels) return x * 0;
  const auto draws = torch::empty({(x.numel() + kValues - 1) / kValues}, torch::kInt64)
                         .random_(std::numeric_limits<int64_t>::min(), std::optional<int64_t>());
  const auto levels = draws.view(torch::kInt16).narrow(0, 0, x.numel()).view(x.sizes());
  const auto scale = static_cast<double>(kLevels) / static_cast<double>(kLevels - dropped);
  return x * levels.ge(std::numeric_limits<int16_t>::min() + dropped).to(x.scalar_type()).mul_(scale);
}

}  // namespace graft::nn
