// StarCoder2: a decoder with layer norms and biases, rotary positions, grouped queries and a sliding window.
// Paper:    Lozhkov et al. 2024, https://arxiv.org/abs/2402.19173
// Weights:  transformers `starcoder2`; keys are its keys.
// Parity:   tests/parity/starcoder2-gqa, transformers 5.17: outputs and gradients (tests/models/parity_test.cpp).
// Differs:  attention by scaled_dot_product_attention without padded tokens; the reference pads and masks.
//           `mlp_type`, `norm_type` and `activation_function` of published configs are read by neither.
// Shapes:   N tokens, M needed tokens, C channels, F inner width, V vocabulary.
#include <torch/nn/modules/container/modulelist.h>

#include "graft/models/architectures.h"
#include "graft/models/decoder_heads.h"
#include "graft/models/decoder_model.h"
#include "graft/nn/activation.h"
#include "graft/nn/dropout.h"
#include "graft/nn/rotary_attention.h"

namespace graft::models {
namespace {

/// config.json; the defaults are transformers'.
struct Starcoder2Config {
  int64_t vocab_size = 49152, hidden_size = 3072, intermediate_size = 12288, num_hidden_layers = 30,
          num_attention_heads = 24, num_key_value_heads = 2, max_position_embeddings = 4096;
  std::optional<int64_t> sliding_window, pad_token_id;
  std::string hidden_act = "gelu_pytorch_tanh";
  double norm_epsilon = 1e-5, attention_dropout = 0, residual_dropout = 0, embedding_dropout = 0;
  bool tie_word_embeddings = true, use_bias = true;
  std::optional<double> classifier_dropout, hidden_dropout;

  template <class Visitor>
  void visit(Visitor&& field) {
    field("vocab_size", vocab_size, "V");
    field("hidden_size", hidden_size, "C");
    field("intermediate_size", intermediate_size, "F");
    field("num_hidden_layers", num_hidden_layers, "layers");
    field("num_attention_heads", num_attention_heads, "heads of queries");
    field("num_key_value_heads", num_key_value_heads, "heads of keys and values");
    field("max_position_embeddings", max_position_embeddings, "longest text");
    field("sliding_window", sliding_window, "tokens that a token sees, itself counted; all when absent");
    field("hidden_act", hidden_act, "activation of the feed-forward layers");
    field("norm_epsilon", norm_epsilon, "epsilon of the norms");
    field("attention_dropout", attention_dropout, "dropout on attention weights");
    field("residual_dropout", residual_dropout, "dropout after attention and feed-forward");
    field("embedding_dropout", embedding_dropout, "dropout after the embeddings");
    field("tie_word_embeddings", tie_word_embeddings, "the head uses the embedding's matrix");
    field("use_bias", use_bias, "biases in all linear layers");
    field("pad_token_id", pad_token_id, "its embedding gets no gradient through the look-up; a score skips it");
    field("classifier_dropout", classifier_dropout, "dropout of the head on tokens");
    field("hidden_dropout", hidden_dropout, "the same where classifier_dropout is absent");
  }
};

struct Starcoder2MlpImpl : torch::nn::Module {
  explicit Starcoder2MlpImpl(const Starcoder2Config& c) : act(nn::activation(c.hidden_act, "config.json")) {
    c_fc = register_module("c_fc", nn::Linear(c.hidden_size, c.intermediate_size, c.use_bias));
    c_proj = register_module("c_proj", nn::Linear(c.intermediate_size, c.hidden_size, c.use_bias));
  }
  Tensor forward(const Tensor& x) { return c_proj(act(c_fc(x))); }
  nn::Linear c_fc{nullptr}, c_proj{nullptr};
  nn::Activation act;
};
TORCH_MODULE(Starcoder2Mlp);

struct Starcoder2LayerImpl : torch::nn::Module {
  explicit Starcoder2LayerImpl(const Starcoder2Config& c) : dropout(c.residual_dropout) {
    self_attn = register_module("self_attn",
                                nn::RotaryAttention(c.hidden_size, c.hidden_size / c.num_attention_heads, c.use_bias,
                                                    nn::CausalOptions{.num_heads = c.num_attention_heads,
                                                                      .num_key_value_heads = c.num_key_value_heads,
                                                                      .window = c.sliding_window.value_or(0),
                                                                      .dropout = c.attention_dropout}));
    mlp = register_module("mlp", Starcoder2Mlp(c));
    input_layernorm = register_module("input_layernorm", nn::LayerNorm(c.hidden_size, c.norm_epsilon));
    post_attention_layernorm =
        register_module("post_attention_layernorm", nn::LayerNorm(c.hidden_size, c.norm_epsilon));
  }
  Tensor forward(const Tensor& x, const nn::CausalRows& rows, const nn::Rotation& rotation) {
    const auto drop = [&](const Tensor& t) { return nn::dropout(t, dropout, is_training()); };
    const auto needed = rows.index.defined() ? x.index_select(0, rows.index) : x;  // (M, C)
    const auto y = needed + drop(self_attn(input_layernorm(x), rows, rotation));
    return y + drop(mlp(post_attention_layernorm(y)));
  }
  nn::RotaryAttention self_attn{nullptr};
  Starcoder2Mlp mlp{nullptr};
  nn::LayerNorm input_layernorm{nullptr}, post_attention_layernorm{nullptr};
  double dropout;
};
TORCH_MODULE(Starcoder2Layer);

DecoderShape shape_of(const Starcoder2Config& c, const nn::RotaryOptions& rope) {
  return {.embedding_keys = {"model.embed_tokens."},
          .layer_keys = "model.layers.",
          .num_layers = c.num_hidden_layers,
          .max_tokens = context_of(rope),
          .pad_token_id = real_pad(c.pad_token_id, c.vocab_size)};
}

struct Starcoder2Model final : DecoderModel {
  Starcoder2Model(const Starcoder2Config& c, const nn::RotaryOptions& rope, const Task& task)
      : DecoderModel(shape_of(c, rope), task), rotary_(rope), dropout_(c.embedding_dropout) {
    struct Backbone : torch::nn::Module {
      explicit Backbone(const Starcoder2Config& c) {
        embed_tokens = register_module(
            "embed_tokens", nn::Embedding(c.vocab_size, c.hidden_size, real_pad(c.pad_token_id, c.vocab_size)));
        layers = register_module("layers", torch::nn::ModuleList());
        for (int64_t i = 0; i < c.num_hidden_layers; ++i) layers->push_back(Starcoder2Layer(c));
      }
      nn::Embedding embed_tokens{nullptr};
      torch::nn::ModuleList layers{nullptr};
    };
    const auto backbone = register_module("model", std::make_shared<Backbone>(c));
    words_ = backbone->embed_tokens;
    for (const auto& layer : *backbone->layers)
      layers_.push_back(std::dynamic_pointer_cast<Starcoder2LayerImpl>(layer));
    nn::LayerNorm norm(c.hidden_size, c.norm_epsilon);
    head = decoder_head({.prefix = "model",
                         .norm_name = "norm",
                         .norm_module = norm.ptr(),
                         .norm = [norm](const Tensor& x) mutable { return norm(x); },
                         .words = words_,
                         .tied = c.tie_word_embeddings,
                         .token_dropout = c.classifier_dropout.value_or(c.hidden_dropout.value_or(0.1))},
                        task);
  }

 protected:
  Tensor embed(const Tensor& ids, const Tensor&) override {
    return nn::dropout(words_(ids), dropout_, words_->is_training());
  }
  Tensor layer(int64_t index, const Tensor& x, const nn::CausalRows& rows, const nn::Rotation& rotation) override {
    return layers_[index]->forward(x, rows, rotation);
  }
  const nn::Rotary* rotary() const override { return &rotary_; }

 private:
  nn::Rotary rotary_;
  double dropout_;
  nn::Embedding words_{nullptr};
  std::vector<std::shared_ptr<Starcoder2LayerImpl>> layers_;
};

std::shared_ptr<Model> create(const Json& json, const Task& task) {
  const auto c = read_config<Starcoder2Config>(json);
  check_heads(c.hidden_size, c.num_attention_heads, c.num_key_value_heads, false);
  GRAFT_CHECK(model, c.sliding_window.value_or(1) > 0, "config.json: sliding_window is {}; give a number above 0.",
              c.sliding_window.value_or(1));
  const auto rope = rotary_options(json, c.hidden_size / c.num_attention_heads, 10000, c.max_position_embeddings);
  return std::make_shared<Starcoder2Model>(c, rope, task);
}

std::string class_name(const Task& task) {
  if (task.kind == "features") return "Starcoder2Model";
  if (task.kind == "tokens") return "Starcoder2ForTokenClassification";
  if (task.kind == "causal_lm") return "Starcoder2ForCausalLM";
  return "Starcoder2ForSequenceClassification";
}

}  // namespace

Architecture starcoder2() {
  return {
      .model_type = "starcoder2",
      .prefix = "model",
      .create = create,
      .class_name = class_name,
      .rules = {drop("*.rotary_emb.inv_freq"), drop("lm_head."), drop("score.")},
      .tied = {{"lm_head.weight", "model.embed_tokens.weight"}},
      .language_task = "causal_lm",
  };
}

}  // namespace graft::models
