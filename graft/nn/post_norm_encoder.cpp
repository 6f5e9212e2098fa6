#include "graft/nn/post_norm_encoder.h"

#include "graft/nn/attention.h"
#include "graft/nn/dropout.h"
#include "graft/nn/levels.h"

namespace graft::nn {

PostNormEmbeddingsImpl::PostNormEmbeddingsImpl(const PostNormOptions& o) : dropout(o.hidden_dropout_prob) {
  const auto C = o.hidden_size;
  word_embeddings = register_module("word_embeddings", Embedding(o.vocab_size, C, o.pad_token_id));
  position_embeddings = register_module(
      "position_embeddings",
      Embedding(o.max_position_embeddings, C, o.pad_has_position ? std::optional(o.pad_token_id) : std::nullopt));
  token_type_embeddings = register_module("token_type_embeddings", Embedding(o.type_vocab_size, C));
  norm = register_module("LayerNorm", LayerNorm(C, o.layer_norm_eps));
}

Tensor PostNormEmbeddingsImpl::forward(const Tensor& ids, const Tensor& type_ids, const Tensor& positions) {
  // The reference's order of the sum, so that rounding is the same.
  const auto x = word_embeddings(ids) + token_type_embeddings(type_ids) + position_embeddings(positions);
  return nn::dropout(norm(x), dropout, is_training());  // (N, C)
}

PostNormLayerImpl::PostNormLayerImpl(const PostNormOptions& o)
    : num_heads(o.num_attention_heads),
      dropout(o.hidden_dropout_prob),
      attention_dropout(o.attention_probs_dropout_prob),
      act(activation(o.hidden_act, "config.json")) {
  const auto C = o.hidden_size, F = o.intermediate_size;
  query = place(*this, "attention.self.query", Linear(C, C));
  key = place(*this, "attention.self.key", Linear(C, C));
  value = place(*this, "attention.self.value", Linear(C, C));
  attention_dense = place(*this, "attention.output.dense", Linear(C, C));
  attention_norm = place(*this, "attention.output.LayerNorm", LayerNorm(C, o.layer_norm_eps));
  inner = place(*this, "intermediate.dense", Linear(C, F));
  outer = place(*this, "output.dense", Linear(F, C));
  output_norm = place(*this, "output.LayerNorm", LayerNorm(C, o.layer_norm_eps));
}

Tensor PostNormLayerImpl::forward(const Tensor& x, const std::vector<int64_t>& lengths, const Tensor& index,
                                  const std::vector<int64_t>& query_lengths) {
  const auto needed = index.defined() ? x.index_select(0, index) : x;  // (M, C)
  const auto mixed = attention(query(needed), key(x), value(x), query_lengths, lengths, num_heads,
                               is_training() ? attention_dropout : 0.0);
  const auto y = attention_norm(nn::dropout(attention_dense(mixed), dropout, is_training()) + needed);
  return output_norm(nn::dropout(outer(act(inner(y))), dropout, is_training()) + y);
}

PostNormEncoderImpl::PostNormEncoderImpl(const PostNormOptions& o) {
  embeddings = register_module("embeddings", PostNormEmbeddings(o));
  for (int64_t i = 0; i < o.num_hidden_layers; ++i)
    layers.push_back(place(*this, "encoder.layer." + std::to_string(i), PostNormLayer(o)));
}

}  // namespace graft::nn
