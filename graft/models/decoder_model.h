// The chain that decoders have: embeddings, then one block a layer, each token seeing what stands before it.
// Shapes:  B examples, N tokens of all examples, C channels, V vocabulary.
#pragma once

#include <optional>

#include "graft/models/config.h"
#include "graft/models/model.h"
#include "graft/nn/causal_attention.h"
#include "graft/nn/rotary.h"

namespace graft::models {

/// Where a family keeps its parts, and what its config says of padding.
struct DecoderShape {
  std::vector<std::string> embedding_keys;  // prefixes of keys: "model.embed_tokens."
  std::string layer_keys;                   // "model.layers."
  int64_t num_layers = 0;
  int64_t max_tokens = 0;
  std::optional<int64_t> pad_token_id;
};

struct DecoderModel : Model {
  DecoderModel(const DecoderShape& shape, const Task& task);
  int64_t max_tokens() const override { return shape_.max_tokens; }

  /// Reads more tokens of each sequence, behind those that `cache` holds; any number for an empty cache, then one at a
  /// time. The logits that follow the last of them, (B, V). Wants the head of causal_lm.
  Tensor extend(const std::vector<std::vector<int32_t>>& tokens, nn::KeyValueCache& cache);
  int64_t num_layers() const { return shape_.num_layers; }

 protected:
  /// ids, positions (N) -> (N, C)
  virtual Tensor embed(const Tensor& ids, const Tensor& positions) = 0;
  /// x (N, C) -> (M, C)
  virtual Tensor layer(int64_t index, const Tensor& x, const nn::CausalRows& rows, const nn::Rotation& rotation) = 0;
  /// Null for a family with a table of positions.
  virtual const nn::Rotary* rotary() const { return nullptr; }

  Activations forward_block(const Chain& chain, int64_t index, Activations x, const ReadIndex* needed) override;
  void fill_shared(const Chain& chain, Activations& x) override;

 private:
  ReadIndex before_padding(const Rows& ids, const ReadIndex& needed) const;

  DecoderShape shape_;
  bool skips_padding_;                  // the head reads the last token that is not padding
  nn::KeyValueCache* cache_ = nullptr;  // while extend() runs
};

/// The padding id of a config; none where it is null or, as in some LLaMA 1 files, negative or beyond the vocabulary.
std::optional<int64_t> real_pad(std::optional<int64_t> pad_token_id, int64_t vocab_size);

/// Rotary settings of a config.json: `rope_parameters` of transformers 5, or `rope_theta` and `rope_scaling`.
/// Throws Kind::model for wrong types and missing values, naming the key.
nn::RotaryOptions rotary_options(const Json& config, int64_t head_width, double default_theta, int64_t max_positions);
/// Tokens that the scaling was made for: max_positions, times the factor where that is not counted in already (dynamic).
int64_t context_of(const nn::RotaryOptions& options);

/// Throws Kind::model unless heads divide the width (or head_dim is given) and groups divide the heads.
void check_heads(int64_t hidden_size, int64_t heads, int64_t key_value_heads, bool head_dim_given);

}  // namespace graft::models
