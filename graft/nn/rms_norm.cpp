#include "graft/nn/rms_norm.h"

namespace graft::nn {

RmsNormImpl::RmsNormImpl(int64_t width, double eps) : eps(eps) {
  weight = register_parameter("weight", torch::ones({width}));
}

Tensor RmsNormImpl::forward(const Tensor& x) { return attached(x, torch::rms_norm(x, {weight.size(0)}, weight, eps)); }

}  // namespace graft::nn
