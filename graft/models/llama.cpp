// LLaMA 1, 2 and 3.x: a decoder with RMS norms before each part, rotary positions, grouped queries and a gated MLP.
// Papers:   Touvron et al. 2023, https://arxiv.org/abs/2302.13971 and https://arxiv.org/abs/2307.09288;
//           Llama 3: https://arxiv.org/abs/2407.21783
// Weights:  transformers `llama`; keys are its keys. Meta's own files (consolidated.*.pth) order q and k otherwise.
// Parity:   tests/parity/llama-*, transformers 5.17: outputs and gradients (tests/models/parity_test.cpp).
// Differs:  attention by scaled_dot_product_attention without padded tokens; the reference pads and masks.
// Shapes:   N tokens, M needed tokens, C channels, F inner width, V vocabulary.
#include <torch/nn/modules/container/modulelist.h>

#include "graft/models/architectures.h"
#include "graft/models/decoder_heads.h"
#include "graft/models/decoder_model.h"
#include "graft/nn/activation.h"
#include "graft/nn/rms_norm.h"
#include "graft/nn/rotary_attention.h"

namespace graft::models {
namespace {

/// config.json; the defaults are transformers'.
struct LlamaConfig {
  int64_t vocab_size = 32000, hidden_size = 4096, intermediate_size = 11008, num_hidden_layers = 32,
          num_attention_heads = 32, max_position_embeddings = 2048;
  std::optional<int64_t> num_key_value_heads, head_dim, pad_token_id;
  std::string hidden_act = "silu";
  double rms_norm_eps = 1e-6, attention_dropout = 0;
  bool tie_word_embeddings = false, attention_bias = false, mlp_bias = false;
  std::optional<double> classifier_dropout, hidden_dropout;

  int64_t key_value_heads() const { return num_key_value_heads.value_or(num_attention_heads); }
  int64_t head_width() const { return head_dim.value_or(hidden_size / std::max<int64_t>(1, num_attention_heads)); }

  template <class Visitor>
  void visit(Visitor&& field) {
    field("vocab_size", vocab_size, "V");
    field("hidden_size", hidden_size, "C");
    field("intermediate_size", intermediate_size, "F");
    field("num_hidden_layers", num_hidden_layers, "layers");
    field("num_attention_heads", num_attention_heads, "heads of queries");
    field("num_key_value_heads", num_key_value_heads, "heads of keys and values; as many as of queries when absent");
    field("head_dim", head_dim, "width of a head; C / heads when absent");
    field("max_position_embeddings", max_position_embeddings, "longest text");
    field("hidden_act", hidden_act, "activation of the gate");
    field("rms_norm_eps", rms_norm_eps, "epsilon of the norms");
    field("attention_dropout", attention_dropout, "dropout on attention weights");
    field("tie_word_embeddings", tie_word_embeddings, "the head uses the embedding's matrix");
    field("attention_bias", attention_bias, "biases in q, k, v, o");
    field("mlp_bias", mlp_bias, "biases in gate, up, down");
    field("pad_token_id", pad_token_id, "its embedding gets no gradient through the look-up; a score skips it");
    field("classifier_dropout", classifier_dropout, "dropout of the head on tokens");
    field("hidden_dropout", hidden_dropout, "the same where classifier_dropout is absent");
  }
};

struct LlamaMlpImpl : torch::nn::Module {
  explicit LlamaMlpImpl(const LlamaConfig& c) : act(nn::activation(c.hidden_act, "config.json")) {
    const auto C = c.hidden_size, F = c.intermediate_size;
    gate_proj = register_module("gate_proj", nn::Linear(C, F, c.mlp_bias));
    up_proj = register_module("up_proj", nn::Linear(C, F, c.mlp_bias));
    down_proj = register_module("down_proj", nn::Linear(F, C, c.mlp_bias));
  }
  Tensor forward(const Tensor& x) { return down_proj(act(gate_proj(x)) * up_proj(x)); }
  nn::Linear gate_proj{nullptr}, up_proj{nullptr}, down_proj{nullptr};
  nn::Activation act;
};
TORCH_MODULE(LlamaMlp);

struct LlamaLayerImpl : torch::nn::Module {
  explicit LlamaLayerImpl(const LlamaConfig& c) {
    self_attn =
        register_module("self_attn", nn::RotaryAttention(c.hidden_size, c.head_width(), c.attention_bias,
                                                         nn::CausalOptions{.num_heads = c.num_attention_heads,
                                                                           .num_key_value_heads = c.key_value_heads(),
                                                                           .dropout = c.attention_dropout}));
    mlp = register_module("mlp", LlamaMlp(c));
    input_layernorm = register_module("input_layernorm", nn::RmsNorm(c.hidden_size, c.rms_norm_eps));
    post_attention_layernorm = register_module("post_attention_layernorm", nn::RmsNorm(c.hidden_size, c.rms_norm_eps));
  }
  Tensor forward(const Tensor& x, const nn::CausalRows& rows, const nn::Rotation& rotation) {
    const auto needed = rows.index.defined() ? x.index_select(0, rows.index) : x;  // (M, C)
    const auto y = needed + self_attn(input_layernorm(x), rows, rotation);
    return y + mlp(post_attention_layernorm(y));
  }
  nn::RotaryAttention self_attn{nullptr};
  LlamaMlp mlp{nullptr};
  nn::RmsNorm input_layernorm{nullptr}, post_attention_layernorm{nullptr};
};
TORCH_MODULE(LlamaLayer);

DecoderShape shape_of(const LlamaConfig& c, const nn::RotaryOptions& rope) {
  return {.embedding_keys = {"model.embed_tokens."},
          .layer_keys = "model.layers.",
          .num_layers = c.num_hidden_layers,
          .max_tokens = context_of(rope),
          .pad_token_id = real_pad(c.pad_token_id, c.vocab_size)};
}

struct LlamaModel final : DecoderModel {
  LlamaModel(const LlamaConfig& c, const nn::RotaryOptions& rope, const Task& task)
      : DecoderModel(shape_of(c, rope), task), rotary_(rope) {
    struct Backbone : torch::nn::Module {
      explicit Backbone(const LlamaConfig& c) {
        embed_tokens = register_module(
            "embed_tokens", nn::Embedding(c.vocab_size, c.hidden_size, real_pad(c.pad_token_id, c.vocab_size)));
        layers = register_module("layers", torch::nn::ModuleList());
        for (int64_t i = 0; i < c.num_hidden_layers; ++i) layers->push_back(LlamaLayer(c));
      }
      nn::Embedding embed_tokens{nullptr};
      torch::nn::ModuleList layers{nullptr};
    };
    const auto backbone = register_module("model", std::make_shared<Backbone>(c));
    words = backbone->embed_tokens;
    for (const auto& layer : *backbone->layers) layers_.push_back(std::dynamic_pointer_cast<LlamaLayerImpl>(layer));
    nn::RmsNorm norm(c.hidden_size, c.rms_norm_eps);
    head = decoder_head({.prefix = "model",
                         .norm_name = "norm",
                         .norm_module = norm.ptr(),
                         .norm = [norm](const Tensor& x) mutable { return norm(x); },
                         .words = words,
                         .tied = c.tie_word_embeddings,
                         .token_dropout = c.classifier_dropout.value_or(c.hidden_dropout.value_or(0.1))},
                        task);
  }

 protected:
  Tensor embed(const Tensor& ids, const Tensor&) override { return words(ids); }
  Tensor layer(int64_t index, const Tensor& x, const nn::CausalRows& rows, const nn::Rotation& rotation) override {
    return layers_[index]->forward(x, rows, rotation);
  }
  const nn::Rotary* rotary() const override { return &rotary_; }

 private:
  nn::Rotary rotary_;
  nn::Embedding words{nullptr};
  std::vector<std::shared_ptr<LlamaLayerImpl>> layers_;
};

std::shared_ptr<Model> create(const Json& json, const Task& task) {
  const auto c = read_config<LlamaConfig>(json);
  check_heads(c.hidden_size, c.num_attention_heads, c.key_value_heads(), c.head_dim.has_value());
  return std::make_shared<LlamaModel>(c, rotary_options(json, c.head_width(), 10000, c.max_position_embeddings), task);
}

std::string class_name(const Task& task) {
  if (task.kind == "features") return "LlamaModel";
  if (task.kind == "tokens") return "LlamaForTokenClassification";
  if (task.kind == "causal_lm") return "LlamaForCausalLM";
  return "LlamaForSequenceClassification";
}

}  // namespace

Architecture llama() {
  return {
      .model_type = "llama",
      .prefix = "model",
      .create = create,
      .class_name = class_name,
      .rules = {drop("*.rotary_emb.inv_freq"), drop("lm_head."), drop("score.")},
      .tied = {{"lm_head.weight", "model.embed_tokens.weight"}},
      .language_task = "causal_lm",
  };
}

}  // namespace graft::models
