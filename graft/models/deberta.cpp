// DeBERTa v1: relative positions in the attention, none in the input.
// Paper:    He et al. 2021, https://arxiv.org/abs/2006.03654
// Weights:  transformers `deberta` (deberta-base, -large, -xlarge); keys are its keys.
// Parity:   tests/parity/deberta-seqcls and -mlm, transformers 5.17: outputs and gradients.
// Differs:  no padded tokens; the relative table is projected only where a distance occurs.
// Shapes:   N tokens, M tokens that ask, C channels, H heads, D = C / H, R rows of the relative table.
#include "graft/models/deberta_model.h"
#include "graft/models/encoder_heads.h"

namespace graft::models {
namespace {

struct Projections final : DebertaProjections {
  explicit Projections(const DebertaConfig& c) : num_heads(c.num_attention_heads) {
    const auto C = c.hidden_size;
    in_proj = register_module("in_proj", nn::Linear(C, 3 * C, false));
    q_bias = register_parameter("q_bias", torch::zeros({C}));
    v_bias = register_parameter("v_bias", torch::zeros({C}));
    if (c.has("c2p")) pos_proj = register_module("pos_proj", nn::Linear(C, C, false));
    if (c.has("p2c")) pos_q_proj = register_module("pos_q_proj", nn::Linear(C, C));
  }

  nn::Disentangled project(const Tensor& x, const Tensor& index, const Tensor& table) override {
    const auto N = x.size(0);
    // Per head its query, key and value stand together: (N, 3 * C) is (N, H, 3, D).
    const auto parts = in_proj(x).view({N, num_heads, 3, -1}).unbind(2);
    const auto query = parts[0].reshape({N, -1}) + q_bias;
    return {.query = index.defined() ? query.index_select(0, index) : query,
            .key = parts[1].reshape({N, -1}),
            .value = parts[2].reshape({N, -1}) + v_bias,
            .position_key = pos_proj ? pos_proj(table) : Tensor(),
            .position_query = pos_q_proj ? pos_q_proj(table) : Tensor()};
  }

  int64_t num_heads;
  nn::Linear in_proj{nullptr}, pos_proj{nullptr}, pos_q_proj{nullptr};
  Tensor q_bias, v_bias;
};

/// The library's defaults: those of the base model, but without relative attention.
DebertaConfig defaults() {
  DebertaConfig c;
  c.vocab_size = 50265;
  c.hidden_size = 768;
  c.num_hidden_layers = c.num_attention_heads = 12;
  c.intermediate_size = 3072;
  return c;
}

std::shared_ptr<DebertaProjections> make_projections(const DebertaConfig& c) {
  return std::make_shared<Projections>(c);
}

std::shared_ptr<Model> create(const Json& json, const Task& task) {
  auto c = read_deberta_config(json, defaults());
  c.position_buckets = -1;  // v2's, as its convolution and the norm of the table
  c.norm_rel_ebd = "none";
  const auto model = std::make_shared<DebertaModel>(c, make_projections, nullptr);
  model->head = deberta_head(*model, task);
  return model;
}

std::string class_name(const Task& task) { return encoder_class_name("Deberta", task); }

}  // namespace

Architecture deberta() {
  auto row = deberta_architecture();
  row.model_type = "deberta";
  row.create = create;
  row.class_name = class_name;
  return row;
}

}  // namespace graft::models
