// Tensors in, tensors out: what a model computes, named as its reference names it. The contract of tests/parity.
#pragma once

#include "graft/models/source.h"

namespace graft::models {

struct Computed {
  std::map<std::string, Tensor> outputs;    // as the reference shapes them, (B, T, ...) per token; 0 at padded places
  std::map<std::string, Tensor> gradients;  // "grad.<key in the file>", of the sum of cotangent.<output> * output
  std::vector<std::string> fresh;           // parameters that the file did not have
};

/// `inputs`: input_ids (B, T) int64, attention_mask, token_type_ids, position_ids where they are given, and
/// cotangent.<output>. Evaluation mode. Throws Kind::data for shapes and ids that do not fit, naming tensor and place.
Computed compute(const Source& source, const std::map<std::string, Tensor>& inputs, bool with_gradients);

}  // namespace graft::models
