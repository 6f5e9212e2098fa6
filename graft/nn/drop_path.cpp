#include "graft/nn/drop_path.h"

namespace graft::nn {

torch::Tensor drop_path(const torch::Tensor& x, int64_t examples, double rate, bool training) {
  if (!training || rate == 0) return x;
  const auto kept = torch::empty({examples, 1}, x.options()).bernoulli_(1 - rate).div_(1 - rate);
  return (x.reshape({examples, -1}) * kept).view(x.sizes());
}

}  // namespace graft::nn
