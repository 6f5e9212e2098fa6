// The heads that BERT and its relatives share: features, token classification.
#pragma once

#include "graft/models/model.h"
#include "graft/nn/layers.h"

namespace graft::models {

/// last_hidden_state and, from its first token, pooler_output = tanh(dense(h[0])). Key: <prefix>.pooler.dense.
/// `with_pooler` false: last_hidden_state alone.
std::shared_ptr<Head> features_head(const std::string& prefix, int64_t hidden_size, bool with_pooler);

/// dropout, then a linear layer on every token. Key: classifier.
std::shared_ptr<Head> token_head(int64_t hidden_size, int64_t num_labels, double dropout);

/// tanh(dense(x)) under the keys <prefix>.pooler.dense; a module to register in a head.
struct PoolerImpl : torch::nn::Module {
  explicit PoolerImpl(int64_t hidden_size);
  Tensor forward(const Tensor& x);  // (B, C) -> (B, C)
  nn::Linear dense{nullptr};
};
TORCH_MODULE(Pooler);

/// A module that stands for one level of a key and holds one module: <name>.<...>.
template <class Holder>
Holder register_below(torch::nn::Module& parent, const std::string& level, const std::string& name, Holder holder) {
  struct Level : torch::nn::Module {
    void add(const std::string& key, std::shared_ptr<torch::nn::Module> module) { register_module(key, module); }
  };
  auto shell = std::make_shared<Level>();
  shell->add(name, holder.ptr());
  parent.register_module(level, shell);
  return holder;
}

}  // namespace graft::models
