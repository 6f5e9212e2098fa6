// In which type a model keeps its matrices: float32, or bfloat16 at half the memory (train.weights).
#pragma once

#include "graft/models/model.h"

namespace graft::models {

/// The weights of linear layers and embeddings take the type; biases, norms, convolutions and tables stay in float32, in
/// which everything is computed. `values` false: there are none yet, as while they are put off (nn/fresh.h).
/// Throws Kind::usage for a model whose weights lie elsewhere (convolutional networks).
void keep_weights_as(Model& model, torch::Dtype type, bool values = true);

/// bfloat16 where any weight is kept so.
torch::Dtype weight_type(const Model& model);
/// Of the recipe's train.weights.
torch::Dtype weight_type_named(const std::string& weights);

}  // namespace graft::models
