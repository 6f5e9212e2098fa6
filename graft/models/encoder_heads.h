// The heads that BERT and its relatives share: features, token classification, masked language modelling.
#pragma once

#include "graft/models/model.h"
#include "graft/nn/activation.h"
#include "graft/nn/layers.h"
#include "graft/nn/tied_linear.h"

namespace graft::models {

/// last_hidden_state and, from its first token, pooler_output = tanh(dense(h[0])). Key: <prefix>.pooler.dense.
/// `with_pooler` false: last_hidden_state alone.
std::shared_ptr<Head> features_head(const std::string& prefix, int64_t hidden_size, bool with_pooler);

/// dropout, then a linear layer on every token. Key: classifier.
std::shared_ptr<Head> token_head(int64_t hidden_size, int64_t num_labels, double dropout);

/// Where the parts of a masked-LM head stand in the file: <bias>.bias, <transform>.dense and <transform>.LayerNorm.
struct MaskedLmKeys {
  std::string bias = "cls.predictions", transform = "cls.predictions.transform";
};

/// dense, activation, norm, then the transposed word embeddings and a bias of the vocabulary's size.
struct MaskedLmLayers {
  /// Registers its parameters in `owner`; `words` belongs to the first block.
  MaskedLmLayers(torch::nn::Module& owner, const MaskedLmKeys& keys, int64_t hidden_size, const std::string& act,
                 double eps, nn::Embedding words);
  Tensor logits(const Tensor& hidden);       // (N, C) -> (N, V)
  Tensor transformed(const Tensor& hidden);  // (N, C) -> (N, E): what the transposed embeddings then multiply

  nn::Embedding words;
  nn::Activation act;
  nn::Linear dense{nullptr};
  nn::LayerNorm norm{nullptr};
  nn::TiedLinear decoder{nullptr};
  Tensor bias;
};

/// logits of every token that is read; it uses the group "embeddings".
std::shared_ptr<Head> masked_lm_head(const MaskedLmKeys& keys, int64_t hidden_size, const std::string& act, double eps,
                                     nn::Embedding words);

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
