// Activation functions by the names that published config.json files use.
#pragma once

#include <torch/types.h>

#include <string>

namespace graft::nn {

using Activation = torch::Tensor (*)(const torch::Tensor&);

/// "gelu" is the erf form; "gelu_new", "gelu_fast" and "gelu_pytorch_tanh" its tanh approximation.
/// Throws Kind::model naming `where` and the known names when the name is unknown.
Activation activation(const std::string& name, const std::string& where);

}  // namespace graft::nn
