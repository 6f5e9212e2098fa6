#include "graft/nn/activation.h"

#include <map>

#include "graft/core/error.h"

namespace graft::nn {
namespace {

using torch::Tensor;

Tensor gelu_erf(const Tensor& x) { return torch::gelu(x); }
Tensor gelu_tanh(const Tensor& x) { return torch::gelu(x, "tanh"); }
Tensor quick_gelu(const Tensor& x) { return x * torch::sigmoid(1.702 * x); }
Tensor relu(const Tensor& x) { return torch::relu(x); }
Tensor silu(const Tensor& x) { return torch::silu(x); }
Tensor tanh(const Tensor& x) { return torch::tanh(x); }

const std::map<std::string, Activation>& table() {
  static const std::map<std::string, Activation> kTable{{"gelu", gelu_erf},
                                                        {"gelu_new", gelu_tanh},
                                                        {"gelu_fast", gelu_tanh},
                                                        {"gelu_pytorch_tanh", gelu_tanh},
                                                        {"quick_gelu", quick_gelu},
                                                        {"relu", relu},
                                                        {"silu", silu},
                                                        {"swish", silu},
                                                        {"tanh", tanh}};
  return kTable;
}

}  // namespace

Activation activation(const std::string& name, const std::string& where) {
  const auto found = table().find(name);
  if (found != table().end()) return found->second;
  std::vector<std::string> known;
  for (const auto& row : table()) known.push_back(row.first);
  fail(Kind::model, "{}: the activation function `{}` is unknown; known are {}.", where, name, listed(known, 20));
}

}  // namespace graft::nn
