// The diagonal of the Fisher information: how much each parameter mattered for what a model knows.
// Paper:  Kirkpatrick et al. 2017, https://arxiv.org/abs/1612.00796: F_i = E[(d log p(y|x) / d theta_i)^2], the mean over
//         examples of the square of the gradient of one example. Squaring a batch's mean gradient is another number, and
//         one that changes with the batch size.
// Differs: labels of the data, or drawn from the model's own outputs (own_labels.h), as the definition has it.
#pragma once

#include <functional>

#include "graft/train/stream.h"

namespace graft::retain {

using models::Tensor;

struct Fisher {
  std::map<std::string, Tensor> diagonal;  // by key, all parameters of the model and its head
  int64_t examples = 0;
  std::vector<std::string> looped;  // parameters whose layers tell no examples apart; they were computed one by one
};

struct FisherWork {
  int64_t batch_rows = 2048;
  bool loop = false;  // every example by itself, for comparison
  std::function<void(int64_t done, int64_t total)> progress = {};
};

/// Of the loss that `stream` gives to each of `examples`, in evaluation mode. Frozen parameters count too.
/// Leaves the model as it was. Throws Kind::numerical when a gradient is not finite, Kind::usage without examples.
Fisher fisher(models::Model& model, const train::Stream& stream, const std::vector<int64_t>& examples,
              const FisherWork& work = {});

}  // namespace graft::retain
