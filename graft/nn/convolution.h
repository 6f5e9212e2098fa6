// Convolution and batch norm over feature maps, with the adapter and tap of layers.h.
// Shapes:  B images, C channels, H by W pixels.
#pragma once

#include "graft/nn/layers.h"

namespace graft::nn {

struct ConvOptions {
  int64_t in, out, kernel;
  int64_t stride = 1, padding = 0, groups = 1;
  bool bias = false;
};

struct Conv2dImpl : Attachable {
  /// Fresh: N(0, 2 / fan-out) as He et al. 2015 (https://arxiv.org/abs/1502.01852), biases 0.
  explicit Conv2dImpl(const ConvOptions& options);
  /// (B, in, H, W) -> (B, out, H', W'); what does not learn is computed, and given, in channels-last layout.
  Tensor forward(const Tensor& x);
  ConvOptions options;
  Tensor weight, bias;  // (out, in / groups, kernel, kernel), (out)
};
TORCH_MODULE(Conv2d);

/// Statistics of the batch in training, the stored ones else, or always where they are `held`. Frozen blocks are in
/// evaluation mode (Note [Frozen modes] in models/model.cpp), so theirs never move.
struct BatchNormImpl : Attachable {
  /// `momentum`: the weight of the batch in the running statistics.
  explicit BatchNormImpl(int64_t channels, double eps = 1e-5, double momentum = 0.1);
  Tensor forward(const Tensor& x);  // (B, C, H, W)
  void train(bool on = true) override { Attachable::train(on && !held); }
  bool held = false;
  double eps, momentum;
  Tensor weight, bias, running_mean, running_var;  // (C)
  Tensor num_batches_tracked;                      // () int64, counted for other readers of the file
};
TORCH_MODULE(BatchNorm);

}  // namespace graft::nn
