// DeBERTa v2 and v3: log buckets of distances, a table that is normed and projected by the layers' own queries and keys,
// and in the large models of v2 a convolution beside the first layer.
// Papers:   He et al. 2021, https://arxiv.org/abs/2006.03654; He et al. 2023, https://arxiv.org/abs/2111.09543
// Weights:  transformers `deberta-v2` (deberta-v2-*, deberta-v3-*, mdeberta-v3); keys are its keys. The fp16 files of v3
//           are computed and trained in fp32.
// Parity:   tests/parity/deberta-v2-*, transformers 5.17: outputs and gradients.
// Differs:  no padded tokens; the relative table is projected only where a distance occurs.
// Shapes:   N tokens, M tokens that ask, C channels, R rows of the relative table.
#include "graft/models/deberta_model.h"
#include "graft/models/encoder_heads.h"
#include "graft/nn/dropout.h"
#include "graft/nn/fresh.h"
#include "graft/nn/runs.h"

namespace graft::models {
namespace {

struct Projections final : DebertaProjections {
  explicit Projections(const DebertaConfig& c) : c2p(c.has("c2p")), p2c(c.has("p2c")), shared(c.share_att_key) {
    const auto C = c.hidden_size;
    query_proj = register_module("query_proj", nn::Linear(C, C));
    key_proj = register_module("key_proj", nn::Linear(C, C));
    value_proj = register_module("value_proj", nn::Linear(C, C));
    if (c2p && !shared) pos_key_proj = register_module("pos_key_proj", nn::Linear(C, C));
    if (p2c && !shared) pos_query_proj = register_module("pos_query_proj", nn::Linear(C, C));
  }

  nn::Disentangled project(const Tensor& x, const Tensor& index, const Tensor& table) override {
    auto& table_key = shared ? key_proj : pos_key_proj;
    auto& table_query = shared ? query_proj : pos_query_proj;
    return {.query = query_proj(index.defined() ? x.index_select(0, index) : x),
            .key = key_proj(x),
            .value = value_proj(x),
            .position_key = c2p ? table_key(table) : Tensor(),
            .position_query = p2c ? table_query(table) : Tensor()};
  }

  bool c2p, p2c, shared;
  nn::Linear query_proj{nullptr}, key_proj{nullptr}, value_proj{nullptr}, pos_key_proj{nullptr},
      pos_query_proj{nullptr};
};

/// norm(layer output + act(convolution over the layer's input)): neighbouring tokens, never those of another text.
struct Convolution final : DebertaAfterFirst {
  explicit Convolution(const DebertaConfig& c)
      : groups(c.conv_groups), dropout(c.hidden_dropout_prob), act(nn::activation(c.conv_act, "config.json")) {
    const auto C = c.hidden_size;
    const auto conv = register_module("conv", std::make_shared<torch::nn::Module>());
    weight = conv->register_parameter("weight", nn::fresh_normal({C, C / groups, c.conv_kernel_size}, 0.02));
    bias = conv->register_parameter("bias", torch::zeros({C}));
    norm = register_module("LayerNorm", nn::LayerNorm(C, c.layer_norm_eps));
  }

  Tensor forward(const Tensor& input, const Tensor& output, const std::vector<int64_t>& lengths) override {
    const auto runs = nn::runs_of(lengths, lengths);
    std::vector<int64_t> rows;
    rows.reserve(runs.size());
    for (const auto& run : runs) rows.push_back(run.examples * run.length);
    const auto parts = input.split_with_sizes(rows);
    std::vector<Tensor> convolved;
    for (size_t i = 0; i < runs.size(); ++i) {
      const auto x = parts[i].view({runs[i].examples, runs[i].length, -1}).transpose(1, 2);  // (b, C, T)
      convolved.push_back(
          torch::conv1d(x, weight, bias, 1, weight.size(2) / 2, 1, groups).transpose(1, 2).flatten(0, 1));
    }
    return norm(output + act(nn::dropout(torch::cat(convolved), dropout, is_training())));
  }

  int64_t groups;
  double dropout;
  nn::Activation act;
  Tensor weight, bias;  // (C, C / groups, kernel), (C)
  nn::LayerNorm norm{nullptr};
};

std::shared_ptr<DebertaProjections> make_projections(const DebertaConfig& c) {
  return std::make_shared<Projections>(c);
}

std::shared_ptr<Model> create(const Json& json, const Task& task) {
  const auto c = read_deberta_config(json, {});
  const auto convolution = c.conv_kernel_size > 0 ? std::make_shared<Convolution>(c) : nullptr;
  const auto model = std::make_shared<DebertaModel>(c, make_projections, convolution);
  model->head = deberta_head(*model, task);
  return model;
}

std::string class_name(const Task& task) { return encoder_class_name("DebertaV2", task); }

}  // namespace

Architecture deberta_v2() {
  auto row = deberta_architecture();
  row.model_type = "deberta-v2";
  row.create = create;
  row.class_name = class_name;
  return row;
}

}  // namespace graft::models
