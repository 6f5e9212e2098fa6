// A linear layer whose matrix belongs to another layer: the decoder of a language head, tied to the embeddings.
#pragma once

#include "graft/nn/layers.h"

namespace graft::nn {

/// x W^T + b. It owns no parameter and has no key; it is a module so that a tap can see this use of the matrix.
struct TiedLinearImpl : Attachable {
  /// weight (out, in) of another module; bias (out), registered elsewhere, or undefined.
  TiedLinearImpl(Tensor weight, Tensor bias) : weight(std::move(weight)), bias(std::move(bias)) {}
  Tensor forward(const Tensor& x);  // (N, in) -> (N, out)
  Tensor weight, bias;
};
TORCH_MODULE(TiedLinear);

}  // namespace graft::nn
