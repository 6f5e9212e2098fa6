#include "graft/nn/tied_linear.h"

#include "graft/nn/linear.h"

namespace graft::nn {

Tensor TiedLinearImpl::forward(const Tensor& x) { return attached(x, nn::linear(x, weight, bias)); }

}  // namespace graft::nn
