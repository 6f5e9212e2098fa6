#include "graft/models/deberta_model.h"

#include "graft/core/error.h"
#include "graft/models/encoder_heads.h"
#include "graft/nn/dropout.h"

namespace graft::models {

struct DebertaEmbeddings : torch::nn::Module {
  explicit DebertaEmbeddings(const DebertaConfig& c) : dropout(c.hidden_dropout_prob) {
    const auto E = c.embedding_width();
    words = register_module("word_embeddings", nn::Embedding(c.vocab_size, E, c.pad_token_id));
    if (c.position_biased_input)
      positions = register_module("position_embeddings", nn::Embedding(c.max_position_embeddings, E));
    if (c.type_vocab_size > 0) types = register_module("token_type_embeddings", nn::Embedding(c.type_vocab_size, E));
    if (E != c.hidden_size) widen = register_module("embed_proj", nn::Linear(E, c.hidden_size, false));
    norm = register_module("LayerNorm", nn::LayerNorm(c.hidden_size, c.layer_norm_eps));
  }

  /// (N) int64 each -> (N, C)
  Tensor forward(const Tensor& ids, const Tensor& type_ids, const Tensor& position_ids) {
    auto x = words(ids);
    if (positions) x = x + positions(position_ids);
    if (types) x = x + types(type_ids);
    if (widen) x = widen(x);
    return nn::dropout(norm(x), dropout, is_training());
  }

  nn::Embedding words{nullptr}, positions{nullptr}, types{nullptr};
  nn::Linear widen{nullptr};
  nn::LayerNorm norm{nullptr};
  double dropout;
};

/// norm(x + attention(x)), then norm(x + mlp(x)).
struct DebertaLayer : torch::nn::Module {
  DebertaLayer(const DebertaConfig& c, std::shared_ptr<DebertaProjections> made)
      : config(c), positions(c.relative_positions()), act(nn::activation(c.hidden_act, "config.json")) {
    const auto C = c.hidden_size, F = c.intermediate_size;
    const auto attention = register_module("attention", std::make_shared<torch::nn::Module>());
    projections = attention->register_module("self", std::move(made));
    const auto attention_output = attention->register_module("output", std::make_shared<torch::nn::Module>());
    attention_dense = attention_output->register_module("dense", nn::Linear(C, C));
    attention_norm = attention_output->register_module("LayerNorm", nn::LayerNorm(C, c.layer_norm_eps));
    inner = register_module("intermediate", std::make_shared<torch::nn::Module>())
                ->register_module("dense", nn::Linear(C, F));
    const auto output = register_module("output", std::make_shared<torch::nn::Module>());
    outer = output->register_module("dense", nn::Linear(F, C));
    output_norm = output->register_module("LayerNorm", nn::LayerNorm(C, c.layer_norm_eps));
  }

  /// x (N, C) with `lengths`; `table` (2 * span, C) or undefined; `index` (M) of the rows to compute or undefined
  /// for all, `query_lengths` of them per example -> (M, C)
  Tensor forward(const Tensor& x, const std::vector<int64_t>& lengths, const Tensor& table, const Tensor& index,
                 const std::vector<int64_t>& query_lengths) {
    const auto drop = [&](const Tensor& y) { return nn::dropout(y, config.hidden_dropout_prob, is_training()); };
    // Only the rows of distances that occur are projected: the table has 1,024 of them, a sentence needs few.
    auto rows = positions.rows(*std::max_element(lengths.begin(), lengths.end()));
    Tensor nearby;
    if (table.defined()) {
      const auto first = rows[0].item<int64_t>(), last = rows[-1].item<int64_t>();
      nearby = drop(table.narrow(0, first, last - first + 1));  // (R, C)
      rows = (rows - first).to(x.device());
    }
    const auto mixed = nn::disentangled_attention(projections->project(x, index, nearby), rows.to(x.device()), index,
                                                  query_lengths, lengths, config.num_attention_heads,
                                                  1 + static_cast<int64_t>(config.pos_att_type.size()),
                                                  is_training() ? config.attention_probs_dropout_prob : 0.0);
    const auto needed = index.defined() ? x.index_select(0, index) : x;  // (M, C)
    const auto y = attention_norm(drop(attention_dense(mixed)) + needed);
    return output_norm(drop(outer(act(inner(y)))) + y);
  }

  DebertaConfig config;
  nn::RelativePositions positions;
  nn::Activation act;
  std::shared_ptr<DebertaProjections> projections;
  nn::Linear attention_dense{nullptr}, inner{nullptr}, outer{nullptr};
  nn::LayerNorm attention_norm{nullptr}, output_norm{nullptr};
};

namespace {

/// Dropout, dense and activation on the first token, dropout, classifier. New in every published model: the names
/// stand outside the backbone's prefix.
struct DebertaSequenceHead final : Head {
  DebertaSequenceHead(const DebertaConfig& c, int64_t num_labels)
      : act(nn::activation(c.pooler_hidden_act, "config.json")),
        pooler_dropout(c.pooler_dropout),
        dropout(c.head_dropout()) {
    const auto pooler = register_module("pooler", std::make_shared<torch::nn::Module>());
    dense = pooler->register_module("dense", nn::Linear(c.hidden_size, c.hidden_size));
    classifier = register_module("classifier", nn::Linear(c.hidden_size, num_labels));
  }

  Reads reads() const override { return {Reads::Where::first}; }

  Outputs forward(const std::map<std::string, Activations>& ends) override {
    const auto& first = ends.at("text").hidden.values;                                  // (B, C)
    const auto pooled = act(dense(nn::dropout(first, pooler_dropout, is_training())));  // (B, C)
    return {{"logits", classifier(nn::dropout(pooled, dropout, is_training()))}};       // (B, labels)
  }

  nn::Activation act;
  nn::Linear dense{nullptr}, classifier{nullptr};
  double pooler_dropout, dropout;
};

}  // namespace

bool DebertaConfig::has(const std::string& term) const {
  return std::find(pos_att_type.begin(), pos_att_type.end(), term) != pos_att_type.end();
}

nn::RelativePositions DebertaConfig::relative_positions() const {
  const auto furthest = max_relative_positions < 1 ? max_position_embeddings : max_relative_positions;
  return {.span = position_buckets > 0 ? position_buckets : furthest,
          .buckets = std::max<int64_t>(position_buckets, 0),
          .max_position = furthest};
}

DebertaConfig read_deberta_config(const Json& json, DebertaConfig defaults) {
  auto spelled = json;
  if (json.contains("pos_att_type") && json["pos_att_type"].is_string()) {  // "c2p|p2c" in older files
    auto terms = Json::array();
    std::istringstream text(json["pos_att_type"].get<std::string>());
    for (std::string term; std::getline(text, term, '|');) terms.push_back(term);
    spelled["pos_att_type"] = terms;
  }
  auto c = read_config(spelled, std::move(defaults));
  for (const auto& term : c.pos_att_type)
    GRAFT_CHECK(model, term == "c2p" || term == "p2c",
                "config.json: pos_att_type `{}` is not computed by graft; known are c2p and p2c.", term);
  GRAFT_CHECK(model, c.relative_attention || c.pos_att_type.empty(),
              "config.json: pos_att_type is given, but relative_attention is false. Correct the file.");
  GRAFT_CHECK(model, !c.talking_head, "config.json: talking_head is true, which graft does not compute.");
  GRAFT_CHECK(model, c.num_attention_heads > 0 && c.hidden_size % c.num_attention_heads == 0,
              "config.json: hidden_size {} is not a multiple of num_attention_heads {}.", c.hidden_size,
              c.num_attention_heads);
  const auto head = c.hidden_size / c.num_attention_heads;
  GRAFT_CHECK(model, c.attention_head_size.value_or(head) == head,
              "config.json: attention_head_size {} is not hidden_size / num_attention_heads = {}.",
              c.attention_head_size.value_or(head), head);
  GRAFT_CHECK(model, c.pooler_hidden_size.value_or(c.hidden_size) == c.hidden_size,
              "config.json: pooler_hidden_size {} is not hidden_size {}; graft computes no other.",
              c.pooler_hidden_size.value_or(0), c.hidden_size);
  const auto p = c.relative_positions();
  GRAFT_CHECK(model, p.span > 0 && (p.buckets == 0 || (p.buckets >= 4 && p.max_position - 1 > p.buckets / 2)),
              "config.json: position_buckets {} with max_relative_positions {} gives no table of distances.",
              c.position_buckets, p.max_position);
  GRAFT_CHECK(model, c.conv_kernel_size == 0 || c.conv_kernel_size % 2 == 1,
              "config.json: conv_kernel_size {} is even; graft computes odd ones only.", c.conv_kernel_size);
  return c;
}

DebertaModel::DebertaModel(const DebertaConfig& c, MakeProjections make, std::shared_ptr<DebertaAfterFirst> extra)
    : config(c), after_first(std::move(extra)) {
  const auto root = register_module("deberta", std::make_shared<torch::nn::Module>());
  embeddings = root->register_module("embeddings", std::make_shared<DebertaEmbeddings>(c));
  const auto encoder = root->register_module("encoder", std::make_shared<torch::nn::Module>());
  const auto list = encoder->register_module("layer", std::make_shared<torch::nn::Module>());
  for (int64_t i = 0; i < c.num_hidden_layers; ++i)
    layers.push_back(list->register_module(std::to_string(i), std::make_shared<DebertaLayer>(c, make(c))));
  if (c.relative_attention)
    relative =
        encoder->register_module("rel_embeddings", nn::Embedding(2 * c.relative_positions().span, c.hidden_size));
  if (c.relative_attention && c.norms_table())
    relative_norm = encoder->register_module("LayerNorm", nn::LayerNorm(c.hidden_size, c.layer_norm_eps));
  if (after_first) encoder->register_module("conv", after_first);

  // The table is part of the input: it freezes and trains with the embeddings, and every layer uses it.
  groups.push_back({"embeddings", {"deberta.embeddings."}});
  if (relative) groups[0].prefixes.push_back("deberta.encoder.rel_embeddings.");
  if (relative_norm) groups[0].prefixes.push_back("deberta.encoder.LayerNorm.");
  Chain text{.name = "text", .inputs = {"input_ids", "token_type_ids", "position_ids"}};
  text.blocks.push_back({.name = "embeddings", .groups = {"embeddings"}, .reads = text.inputs});
  for (int64_t i = 0; i < c.num_hidden_layers; ++i) {
    const auto name = "layer " + std::to_string(i);
    groups.push_back({name, {"deberta.encoder.layer." + std::to_string(i) + "."}});
    if (i == 0 && after_first) groups.back().prefixes.push_back("deberta.encoder.conv.");
    text.blocks.push_back({.name = name, .groups = {name}});
    if (relative) text.blocks.back().uses = {"embeddings"};
  }
  chains = {text};
}

void DebertaModel::fill_shared(const Chain&, Activations& x) {
  if (!relative) return;
  const auto table = relative(torch::arange(relative->weight.size(0), device()));  // a look-up, so that adapters count
  x.shared["relative"] = relative_norm ? relative_norm(table) : table;
}

Activations DebertaModel::forward_block(const Chain&, int64_t block, Activations x, const ReadIndex* needed) {
  if (block == 0) {
    const auto& ids = x.kept.at("input_ids");
    Activations embedded{.shared = x.shared};
    embedded.hidden = {
        embeddings->forward(ids.values, x.kept.at("token_type_ids").values, x.kept.at("position_ids").values),
        ids.lengths};
    pass_labels(x, embedded);
    return embedded;
  }
  auto& hidden = x.hidden;
  const auto table = relative ? x.shared.at("relative") : Tensor();
  auto& layer = *layers[block - 1];
  if (block == 1 && after_first) {  // it sees neighbours, so the layer is computed everywhere
    auto output = layer.forward(hidden.values, hidden.lengths, table, {}, hidden.lengths);
    output = after_first->forward(hidden.values, output, hidden.lengths);
    hidden.values = needed && needed->index.defined() ? output.index_select(0, needed->index) : output;
  } else {
    hidden.values = layer.forward(hidden.values, hidden.lengths, table, needed ? needed->index : Tensor(),
                                  needed ? needed->lengths : hidden.lengths);
  }
  if (needed) hidden.lengths = needed->lengths;
  return x;
}

std::shared_ptr<Head> deberta_head(const DebertaModel& model, const Task& task) {
  const auto& c = model.config;
  if (task.kind == "features") return features_head("deberta", c.hidden_size, false);
  if (task.kind == "tokens") return token_head(c.hidden_size, task.num_labels, c.hidden_dropout_prob);
  if (task.kind != "masked_lm") return std::make_shared<DebertaSequenceHead>(c, task.num_labels);
  const auto keys = c.legacy ? MaskedLmKeys{} : MaskedLmKeys{"lm_predictions.lm_head", "lm_predictions.lm_head"};
  return masked_lm_head(keys, c.hidden_size, c.hidden_act, c.layer_norm_eps, model.embeddings->words);
}

Architecture deberta_architecture() {
  return {
      .prefix = "deberta",
      // The published files have their language head under lm_predictions, where transformers looks for it only with
      // `legacy: false`; mask_predictions is the discriminator of v3, _weight its difference to the generator.
      .rules = {rename("lm_predictions.lm_head.bias", "cls.predictions.bias"),
                rename("lm_predictions.lm_head.", "cls.predictions.transform."), drop("*.position_ids"),
                drop("*embeddings._weight"), drop("deberta.embeddings.position_embeddings."), drop("lm_predictions."),
                drop("mask_predictions."), drop("cls."), drop("classifier."), drop("pooler.")},
      .tied = {{"cls.predictions.decoder.weight", "deberta.embeddings.word_embeddings.weight"},
               {"cls.predictions.decoder.bias", "cls.predictions.bias"},
               {"lm_predictions.lm_head.weight", "deberta.embeddings.word_embeddings.weight"}},
  };
}

}  // namespace graft::models
