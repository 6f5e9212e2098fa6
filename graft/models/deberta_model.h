// What DeBERTa v1 and v2/v3 share: configuration, embeddings, the chain with its relative table, and the heads.
// The families differ in how a layer projects states and table to queries and keys; each has its own file.
// Shapes:  N tokens of all examples, M tokens that are needed, C channels, H heads, R rows of the relative table.
#pragma once

#include "graft/models/architectures.h"
#include "graft/models/config.h"
#include "graft/models/model.h"
#include "graft/nn/activation.h"
#include "graft/nn/disentangled_attention.h"
#include "graft/nn/layers.h"

namespace graft::models {

/// config.json of both families; the defaults are transformers', which are not those of the published files.
struct DebertaConfig {
  int64_t vocab_size = 128100, hidden_size = 1536, num_hidden_layers = 24, num_attention_heads = 24,
          intermediate_size = 6144, max_position_embeddings = 512, type_vocab_size = 0, pad_token_id = 0,
          max_relative_positions = -1, position_buckets = -1, conv_kernel_size = 0, conv_groups = 1;
  std::optional<int64_t> embedding_size, attention_head_size, pooler_hidden_size;
  double hidden_dropout_prob = 0.1, attention_probs_dropout_prob = 0.1, layer_norm_eps = 1e-7, pooler_dropout = 0;
  std::optional<double> cls_dropout;
  std::string hidden_act = "gelu", pooler_hidden_act = "gelu", conv_act = "tanh", norm_rel_ebd = "none";
  std::vector<std::string> pos_att_type;  // c2p, p2c
  bool relative_attention = false, position_biased_input = true, share_att_key = false, talking_head = false,
       legacy = true;

  double head_dropout() const { return cls_dropout.value_or(hidden_dropout_prob); }
  int64_t embedding_width() const { return embedding_size.value_or(hidden_size); }
  bool has(const std::string& term) const;  // c2p or p2c
  bool norms_table() const { return norm_rel_ebd.find("layer_norm") != std::string::npos; }
  nn::RelativePositions relative_positions() const;

  template <class Visitor>
  void visit(Visitor&& field) {
    field("vocab_size", vocab_size, "V");
    field("hidden_size", hidden_size, "C");
    field("num_hidden_layers", num_hidden_layers, "layers");
    field("num_attention_heads", num_attention_heads, "H");
    field("intermediate_size", intermediate_size, "F");
    field("max_position_embeddings", max_position_embeddings, "most tokens of a text");
    field("type_vocab_size", type_vocab_size, "token types; 0: no table");
    field("pad_token_id", pad_token_id, "its embedding gets no gradient through the look-up");
    field("max_relative_positions", max_relative_positions, "below 1: max_position_embeddings");
    field("position_buckets", position_buckets, "log buckets of distances; below 1: none");
    field("conv_kernel_size", conv_kernel_size, "convolution beside the first layer; 0: none");
    field("conv_groups", conv_groups, "its groups");
    field("embedding_size", embedding_size, "width of the word embeddings; C when absent");
    field("attention_head_size", attention_head_size, "must be C / H");
    field("pooler_hidden_size", pooler_hidden_size, "must be C");
    field("hidden_dropout_prob", hidden_dropout_prob,
          "dropout after embeddings, attention, feed-forward, on the table");
    field("attention_probs_dropout_prob", attention_probs_dropout_prob, "dropout on attention weights");
    field("layer_norm_eps", layer_norm_eps, "epsilon of the norms");
    field("pooler_dropout", pooler_dropout, "dropout before the pooler");
    field("cls_dropout", cls_dropout, "dropout of the classifier; hidden_dropout_prob when absent");
    field("hidden_act", hidden_act, "activation of the feed-forward layers");
    field("pooler_hidden_act", pooler_hidden_act, "activation of the pooler");
    field("conv_act", conv_act, "activation of the convolution");
    field("norm_rel_ebd", norm_rel_ebd, "layer_norm: the relative table passes a norm");
    field("pos_att_type", pos_att_type, "terms of the attention: c2p, p2c");
    field("relative_attention", relative_attention, "whether there is a relative table");
    field("position_biased_input", position_biased_input, "whether absolute positions are added to the input");
    field("share_att_key", share_att_key, "the table is projected by the layer's own query and key");
    field("talking_head", talking_head, "must be false");
    field("legacy", legacy, "the masked-LM head's names: cls.predictions, else lm_predictions.lm_head");
  }
};

/// Reads both spellings of pos_att_type. Throws Kind::model for what is not computed.
DebertaConfig read_deberta_config(const Json& json, DebertaConfig defaults);

/// A family's projections of states and relative table, registered as attention.self of a layer.
struct DebertaProjections : torch::nn::Module {
  /// x (N, C), `index` (M) of the rows that ask or undefined for all, `table` (R, C) or undefined.
  virtual nn::Disentangled project(const Tensor& x, const Tensor& index, const Tensor& table) = 0;
};

/// A family's extra after the first layer: from that layer's input and output (N, C) both.
struct DebertaAfterFirst : torch::nn::Module {
  virtual Tensor forward(const Tensor& input, const Tensor& output, const std::vector<int64_t>& lengths) = 0;
};

struct DebertaLayer;
struct DebertaEmbeddings;

struct DebertaModel : Model {
  using MakeProjections = std::shared_ptr<DebertaProjections> (*)(const DebertaConfig&);
  /// `after_first` may be null; it is registered as encoder.conv.
  DebertaModel(const DebertaConfig& config, MakeProjections projections,
               std::shared_ptr<DebertaAfterFirst> after_first);
  int64_t max_tokens() const override { return config.max_position_embeddings; }

  DebertaConfig config;
  std::shared_ptr<DebertaEmbeddings> embeddings;
  std::vector<std::shared_ptr<DebertaLayer>> layers;
  nn::Embedding relative{nullptr};
  nn::LayerNorm relative_norm{nullptr};
  std::shared_ptr<DebertaAfterFirst> after_first;

 protected:
  Activations forward_block(const Chain& chain, int64_t index, Activations x, const ReadIndex* needed) override;
  /// The relative table, which every layer reads.
  void fill_shared(const Chain& chain, Activations& x) override;
};

/// The head for a task, by the names that both families use.
std::shared_ptr<Head> deberta_head(const DebertaModel& model, const Task& task);

/// The row of architectures() but for model_type, create and class_name.
Architecture deberta_architecture();

}  // namespace graft::models
