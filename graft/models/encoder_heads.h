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

/// transformers' name of the class for a task: the family's stem with Model, ForTokenClassification, ForMaskedLM or
/// ForSequenceClassification.
std::string encoder_class_name(const std::string& stem, const Task& task);

/// Where the parts of a masked-LM head stand in the file: <bias>.bias, <transform>.dense and <transform>.<norm>.
struct MaskedLmKeys {
  std::string bias = "cls.predictions", transform = "cls.predictions.transform", norm = "LayerNorm";
};

/// dense, activation, norm, then the transposed word embeddings and a bias of the vocabulary's size.
struct MaskedLmLayers {
  /// Registers its parameters in `owner`; `words` belongs to the first block.
  MaskedLmLayers(torch::nn::Module& owner, const MaskedLmKeys& keys, int64_t hidden_size, const std::string& act,
                 double eps, nn::Embedding words);
  Tensor transformed(const Tensor& hidden);  // (N, C) -> (N, E): what the transposed embeddings then multiply
  Tensor logits(const Tensor& hidden);       // (N, C) -> (N, V)

  nn::Embedding words;
  nn::Activation act;
  nn::Linear dense{nullptr};
  nn::LayerNorm norm{nullptr};
  nn::TiedLinear decoder{nullptr};
  Tensor bias;
};

/// What a masked-language head answers: where the batch brings `labels` of the rows (-100: none), their summed
/// cross-entropy as `loss`, without the matrix of logits (nn/chunked_cross_entropy.h); else `logits`.
/// x (N, E): the rows of `end`, transformed.
Outputs masked_lm_outputs(const Tensor& x, nn::TiedLinear& decoder, const Activations& end);

/// The labels of a batch pass block 0, which otherwise leaves its inputs behind.
void pass_labels(Activations& from, Activations& to);

/// Of every token that is read; it uses the group "embeddings".
std::shared_ptr<Head> masked_lm_head(const MaskedLmKeys& keys, int64_t hidden_size, const std::string& act, double eps,
                                     nn::Embedding words);

/// tanh(dense(x)) under the keys <prefix>.pooler.dense; a module to register in a head.
struct PoolerImpl : torch::nn::Module {
  explicit PoolerImpl(int64_t hidden_size);
  Tensor forward(const Tensor& x);  // (B, C) -> (B, C)
  nn::Linear dense{nullptr};
};
TORCH_MODULE(Pooler);

}  // namespace graft::models
