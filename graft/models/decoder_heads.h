// The heads that decoders share. Each begins with the final norm, which so trains with the head.
#pragma once

#include <functional>

#include "graft/models/model.h"
#include "graft/nn/layers.h"

namespace graft::models {

/// What a head needs to know of its decoder.
struct DecoderEnd {
  std::string prefix, norm_name;  // of the norm's key: "model", "norm"
  std::shared_ptr<torch::nn::Module> norm_module;
  std::function<Tensor(const Tensor&)> norm;
  nn::Embedding words{nullptr};  // (V, C), the head's matrix when tied
  bool tied = false;
  std::string token_head_name = "score";
  double token_dropout = 0.1;
};

/// By task:
///   features         last_hidden_state (N, C)
///   tokens           logits (N, labels): dropout, then a layer with bias
///   causal_lm        logits (N, V); or, when the end keeps a slot `labels` (N int64, -100 where there is none), their
///                    summed cross-entropy as `loss`, without the matrix of logits (nn/chunked_cross_entropy.h)
///   the others       logits (B, labels) of the last token that is not padding, `score` without bias
std::shared_ptr<Head> decoder_head(const DecoderEnd& end, const Task& task);

}  // namespace graft::models
