#include "graft/models/weight_type.h"

#include "graft/core/error.h"
#include "graft/nn/layers.h"

namespace graft::models {
namespace {

template <class Use>
void for_each_matrix(const Model& model, Use&& use) {
  const auto among = [&](const torch::nn::Module& root) {
    for (const auto& module : root.modules(false)) {
      if (const auto linear = std::dynamic_pointer_cast<nn::LinearImpl>(module)) use(linear->weight);
      if (const auto embedding = std::dynamic_pointer_cast<nn::EmbeddingImpl>(module)) use(embedding->weight);
    }
  };
  among(model);
  if (model.head) among(*model.head);
}

}  // namespace

void keep_weights_as(Model& model, torch::Dtype type, bool values) {
  if (type == torch::kFloat32 && weight_type(model) == type) return;
  const torch::NoGradGuard no_grad;
  int64_t all = 0, in_matrices = 0;
  for (const auto& item : model.parameters_by_key()) all += item.value().numel();
  for_each_matrix(model, [&](const Tensor& weight) { in_matrices += weight.numel(); });
  GRAFT_CHECK(usage, 2 * in_matrices > all,
              "train.weights: {} of the {} parameters of {} are not in linear layers or embeddings (convolutions), and "
              "graft keeps those in float32. Leave train.weights at float32.",
              all - in_matrices, all, model.name);
  for_each_matrix(model, [&](Tensor weight) {
    weight.set_data(values ? weight.detach().to(type) : torch::empty(weight.sizes(), type));
  });
}

torch::Dtype weight_type(const Model& model) {
  auto type = torch::kFloat32;
  for_each_matrix(model, [&](const Tensor& weight) {
    if (weight.scalar_type() == torch::kBFloat16) type = torch::kBFloat16;
  });
  return type;
}

torch::Dtype weight_type_named(const std::string& weights) {
  return weights == "float32" ? torch::kFloat32 : torch::kBFloat16;
}

}  // namespace graft::models
