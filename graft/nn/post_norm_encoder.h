// The encoder that BERT and its relatives share: embeddings with a norm, then layers whose norms follow the residuals.
// Paper:   Devlin et al. 2019, https://arxiv.org/abs/1810.04805.
// Weights: transformers' keys below the model's prefix: embeddings.*, encoder.layer.<i>.*
// Shapes:  N tokens of all examples, M tokens that are needed, C channels, F inner width, H heads.
#pragma once

#include "graft/nn/activation.h"
#include "graft/nn/layers.h"

namespace graft::nn {

struct PostNormOptions {
  int64_t vocab_size = 30522, hidden_size = 768, num_hidden_layers = 12, num_attention_heads = 12,
          intermediate_size = 3072;
  int64_t max_position_embeddings = 512, type_vocab_size = 2, pad_token_id = 0;
  bool pad_has_position = false;  // the position table keeps a row for padding (RoBERTa)
  double layer_norm_eps = 1e-12, hidden_dropout_prob = 0.1, attention_probs_dropout_prob = 0.1;
  std::string hidden_act = "gelu";
};

/// Word, type and position embeddings, summed, normed.
struct PostNormEmbeddingsImpl : torch::nn::Module {
  explicit PostNormEmbeddingsImpl(const PostNormOptions& options);
  /// ids, type_ids, positions (N) int64 -> (N, C)
  Tensor forward(const Tensor& ids, const Tensor& type_ids, const Tensor& positions);

  Embedding word_embeddings{nullptr}, position_embeddings{nullptr}, token_type_embeddings{nullptr};
  LayerNorm norm{nullptr};
  double dropout;
};
TORCH_MODULE(PostNormEmbeddings);

/// norm(x + attention(x)), then norm(x + mlp(x)).
struct PostNormLayerImpl : torch::nn::Module {
  explicit PostNormLayerImpl(const PostNormOptions& options);
  /// x (N, C) with `lengths`; with `index` (M), only those rows are computed: -> (M, C), `query_lengths` of them per example.
  Tensor forward(const Tensor& x, const std::vector<int64_t>& lengths, const Tensor& index,
                 const std::vector<int64_t>& query_lengths);

  Linear query{nullptr}, key{nullptr}, value{nullptr}, attention_dense{nullptr}, inner{nullptr}, outer{nullptr};
  LayerNorm attention_norm{nullptr}, output_norm{nullptr};
  int64_t num_heads;
  double dropout, attention_dropout;
  Activation act;
};
TORCH_MODULE(PostNormLayer);

/// What stands below the prefix: `embeddings` and `encoder.layer`.
struct PostNormEncoderImpl : torch::nn::Module {
  explicit PostNormEncoderImpl(const PostNormOptions& options);
  PostNormEmbeddings embeddings{nullptr};
  std::vector<PostNormLayer> layers;
};
TORCH_MODULE(PostNormEncoder);

}  // namespace graft::nn
