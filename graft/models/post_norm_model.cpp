#include "graft/models/post_norm_model.h"

#include "graft/core/error.h"
#include "graft/models/encoder_heads.h"

namespace graft::models {

PostNormModel::PostNormModel(const std::string& prefix, const PostNormConfig& o) : config(o) {
  GRAFT_CHECK(model, o.position_embedding_type == "absolute",
              "config.json: position_embedding_type `{}` is not computed by graft; only `absolute` is.",
              o.position_embedding_type);
  GRAFT_CHECK(model, !o.is_decoder, "config.json: is_decoder is true; graft runs `{}` as an encoder only.", prefix);
  GRAFT_CHECK(model, o.num_attention_heads > 0 && o.hidden_size % o.num_attention_heads == 0,
              "config.json: hidden_size {} is not a multiple of num_attention_heads {}.", o.hidden_size,
              o.num_attention_heads);
  encoder = register_module(prefix, nn::PostNormEncoder(o));
  Chain text{.name = "text", .inputs = kTextInputs};
  groups.push_back({"embeddings", {prefix + ".embeddings."}});
  text.blocks.push_back({.name = "embeddings", .groups = {"embeddings"}, .reads = kTextInputs});
  for (int64_t i = 0; i < o.num_hidden_layers; ++i) {
    const auto name = "layer " + std::to_string(i);
    groups.push_back({name, {prefix + ".encoder.layer." + std::to_string(i) + "."}});
    text.blocks.push_back({.name = name, .groups = {name}});
  }
  chains = {text};
}

Activations PostNormModel::forward_block(const Chain&, int64_t index, Activations x, const ReadIndex* needed) {
  if (index == 0) {
    const auto& ids = x.kept.at("input_ids");
    Activations embedded;
    embedded.hidden = {
        encoder->embeddings(ids.values, x.kept.at("token_type_ids").values, x.kept.at("position_ids").values),
        ids.lengths};
    pass_labels(x, embedded);
    return embedded;
  }
  auto& hidden = x.hidden;
  const auto& lengths = needed ? needed->lengths : hidden.lengths;
  hidden.values =
      encoder->layers[index - 1]->forward(hidden.values, hidden.lengths, needed ? needed->index : Tensor(), lengths);
  if (needed) hidden.lengths = needed->lengths;
  return x;
}

}  // namespace graft::models
