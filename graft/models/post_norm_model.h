// The chain that BERT and its relatives have: embeddings, then one block a layer.
#pragma once

#include "graft/models/config.h"
#include "graft/models/model.h"
#include "graft/nn/post_norm_encoder.h"

namespace graft::models {

/// Slots of a text batch: ids, types and positions of all tokens, (N) int64.
inline const std::vector<std::string> kTextInputs{"input_ids", "token_type_ids", "position_ids"};

/// config.json of the family; the defaults are BERT's in transformers.
struct PostNormConfig : nn::PostNormOptions {
  std::string position_embedding_type = "absolute";
  std::optional<double> classifier_dropout;
  bool is_decoder = false;

  double head_dropout() const { return classifier_dropout.value_or(hidden_dropout_prob); }

  template <class Visitor>
  void visit(Visitor&& field) {
    field("vocab_size", vocab_size, "V");
    field("hidden_size", hidden_size, "C");
    field("num_hidden_layers", num_hidden_layers, "layers");
    field("num_attention_heads", num_attention_heads, "H");
    field("intermediate_size", intermediate_size, "F");
    field("hidden_act", hidden_act, "activation of the feed-forward layers");
    field("position_embedding_type", position_embedding_type, "absolute is the only one computed");
    field("hidden_dropout_prob", hidden_dropout_prob, "dropout after embeddings, attention and feed-forward");
    field("attention_probs_dropout_prob", attention_probs_dropout_prob, "dropout on attention weights");
    field("layer_norm_eps", layer_norm_eps, "epsilon of the norms");
    field("max_position_embeddings", max_position_embeddings, "rows of the position table");
    field("type_vocab_size", type_vocab_size, "token types");
    field("pad_token_id", pad_token_id, "its embedding gets no gradient through the look-up");
    field("classifier_dropout", classifier_dropout, "dropout of the classifier; hidden_dropout_prob when absent");
    field("is_decoder", is_decoder, "must be false");
  }
};

struct PostNormModel : Model {
  /// `prefix`: the name under which the encoder is registered ("bert").
  /// Throws Kind::model for what is not computed: a decoder, relative positions, heads that do not divide C.
  PostNormModel(const std::string& prefix, const PostNormConfig& config);
  int64_t max_tokens() const override { return config.max_position_embeddings; }

  PostNormConfig config;
  nn::PostNormEncoder encoder{nullptr};

 protected:
  Activations forward_block(const Chain& chain, int64_t index, Activations x, const ReadIndex* needed) override;
};

}  // namespace graft::models
