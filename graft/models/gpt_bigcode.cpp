// GPT-BigCode (SantaCoder, StarCoder v1): GPT-2's decoder in which all heads of queries may share one of keys and values.
// Papers:   Li et al. 2023, https://arxiv.org/abs/2305.06161; multi-query: Shazeer 2019, https://arxiv.org/abs/1911.02150
// Weights:  transformers `gpt_bigcode`; keys are its keys. c_attn and c_proj are [out, in], unlike GPT-2's.
// Parity:   tests/parity/gpt_bigcode-mqa, transformers 5.17: outputs and gradients (tests/models/parity_test.cpp).
// Differs:  attention by scaled_dot_product_attention without padded tokens; the reference pads and masks.
// Shapes:   N tokens, M needed tokens, C channels, H heads, D width of a head, V vocabulary.
#include <torch/nn/modules/container/modulelist.h>

#include "graft/models/architectures.h"
#include "graft/models/decoder_heads.h"
#include "graft/models/decoder_model.h"
#include "graft/nn/activation.h"
#include "graft/nn/dropout.h"

namespace graft::models {
namespace {

/// config.json; the defaults are transformers'.
struct BigCodeConfig {
  int64_t vocab_size = 50257, n_positions = 1024, n_embd = 768, n_layer = 12, n_head = 12;
  std::optional<int64_t> n_inner, pad_token_id;
  std::string activation_function = "gelu_pytorch_tanh";
  double resid_pdrop = 0.1, embd_pdrop = 0.1, attn_pdrop = 0.1, layer_norm_epsilon = 1e-5;
  bool scale_attn_weights = true, multi_query = true, tie_word_embeddings = true, add_cross_attention = false;
  std::optional<double> classifier_dropout, hidden_dropout;

  template <class Visitor>
  void visit(Visitor&& field) {
    field("vocab_size", vocab_size, "V");
    field("n_positions", n_positions, "rows of the position table");
    field("n_embd", n_embd, "C");
    field("n_layer", n_layer, "layers");
    field("n_head", n_head, "H");
    field("n_inner", n_inner, "inner width; 4 C when absent");
    field("activation_function", activation_function, "activation of the feed-forward layers");
    field("resid_pdrop", resid_pdrop, "dropout after attention and feed-forward");
    field("embd_pdrop", embd_pdrop, "dropout after the embeddings");
    field("attn_pdrop", attn_pdrop, "dropout on attention weights");
    field("layer_norm_epsilon", layer_norm_epsilon, "epsilon of the norms");
    field("scale_attn_weights", scale_attn_weights, "scores are divided by sqrt(D)");
    field("multi_query", multi_query, "one head of keys and values");
    field("tie_word_embeddings", tie_word_embeddings, "the head uses the embedding's matrix");
    field("add_cross_attention", add_cross_attention, "must be false");
    field("pad_token_id", pad_token_id, "a score skips it");
    field("classifier_dropout", classifier_dropout, "dropout of the head on tokens");
    field("hidden_dropout", hidden_dropout, "the same where classifier_dropout is absent");
  }
};

/// c_attn makes [q of all heads | k | v] with one head of keys, or per head [q | k | v].
struct BigCodeAttentionImpl : torch::nn::Module {
  explicit BigCodeAttentionImpl(const BigCodeConfig& c)
      : width(c.n_embd),
        head_width(c.n_embd / c.n_head),
        options{.num_heads = c.n_head, .num_key_value_heads = c.multi_query ? 1 : c.n_head, .dropout = c.attn_pdrop} {
    if (!c.scale_attn_weights) options.scale = 1.0;
    c_attn = register_module("c_attn", nn::Linear(width, width + 2 * options.num_key_value_heads * head_width));
    c_proj = register_module("c_proj", nn::Linear(width, width));
  }
  Tensor forward(const Tensor& x, const nn::CausalRows& rows) {
    const auto all = c_attn(x);
    Tensor query, key, value;
    if (options.num_key_value_heads == 1) {
      const auto parts = all.split_with_sizes({width, head_width, head_width}, 1);
      query = parts[0], key = parts[1], value = parts[2];
    } else {
      const auto parts = all.view({x.size(0), options.num_heads, 3 * head_width}).chunk(3, 2);
      query = parts[0].flatten(1), key = parts[1].flatten(1), value = parts[2].flatten(1);
    }
    query = rows.index.defined() ? query.index_select(0, rows.index) : query.contiguous();
    auto now = options;
    if (!is_training()) now.dropout = 0;
    return c_proj(nn::causal_attention(query, key.contiguous(), value.contiguous(), rows, now));
  }
  int64_t width, head_width;
  nn::CausalOptions options;
  nn::Linear c_attn{nullptr}, c_proj{nullptr};
};
TORCH_MODULE(BigCodeAttention);

struct BigCodeMlpImpl : torch::nn::Module {
  explicit BigCodeMlpImpl(const BigCodeConfig& c) : act(nn::activation(c.activation_function, "config.json")) {
    const auto inner = c.n_inner.value_or(4 * c.n_embd);
    c_fc = register_module("c_fc", nn::Linear(c.n_embd, inner));
    c_proj = register_module("c_proj", nn::Linear(inner, c.n_embd));
  }
  Tensor forward(const Tensor& x) { return c_proj(act(c_fc(x))); }
  nn::Linear c_fc{nullptr}, c_proj{nullptr};
  nn::Activation act;
};
TORCH_MODULE(BigCodeMlp);

struct BigCodeLayerImpl : torch::nn::Module {
  explicit BigCodeLayerImpl(const BigCodeConfig& c) : dropout(c.resid_pdrop) {
    ln_1 = register_module("ln_1", nn::LayerNorm(c.n_embd, c.layer_norm_epsilon));
    attn = register_module("attn", BigCodeAttention(c));
    ln_2 = register_module("ln_2", nn::LayerNorm(c.n_embd, c.layer_norm_epsilon));
    mlp = register_module("mlp", BigCodeMlp(c));
  }
  Tensor forward(const Tensor& x, const nn::CausalRows& rows) {
    const auto drop = [&](const Tensor& t) { return nn::dropout(t, dropout, is_training()); };
    const auto needed = rows.index.defined() ? x.index_select(0, rows.index) : x;  // (M, C)
    const auto y = needed + drop(attn(ln_1(x), rows));
    return y + drop(mlp(ln_2(y)));
  }
  nn::LayerNorm ln_1{nullptr}, ln_2{nullptr};
  BigCodeAttention attn{nullptr};
  BigCodeMlp mlp{nullptr};
  double dropout;
};
TORCH_MODULE(BigCodeLayer);

DecoderShape shape_of(const BigCodeConfig& c) {
  return {.embedding_keys = {"transformer.wte.", "transformer.wpe."},
          .layer_keys = "transformer.h.",
          .num_layers = c.n_layer,
          .max_tokens = c.n_positions,
          .pad_token_id = real_pad(c.pad_token_id, c.vocab_size)};
}

struct BigCodeModel final : DecoderModel {
  BigCodeModel(const BigCodeConfig& c, const Task& task) : DecoderModel(shape_of(c), task), dropout_(c.embd_pdrop) {
    struct Backbone : torch::nn::Module {
      explicit Backbone(const BigCodeConfig& c) {
        wte = register_module("wte", nn::Embedding(c.vocab_size, c.n_embd));
        wpe = register_module("wpe", nn::Embedding(c.n_positions, c.n_embd));
        h = register_module("h", torch::nn::ModuleList());
        for (int64_t i = 0; i < c.n_layer; ++i) h->push_back(BigCodeLayer(c));
      }
      nn::Embedding wte{nullptr}, wpe{nullptr};
      torch::nn::ModuleList h{nullptr};
    };
    const auto backbone = register_module("transformer", std::make_shared<Backbone>(c));
    words_ = backbone->wte;
    places_ = backbone->wpe;
    for (const auto& layer : *backbone->h) layers_.push_back(std::dynamic_pointer_cast<BigCodeLayerImpl>(layer));
    nn::LayerNorm norm(c.n_embd, c.layer_norm_epsilon);
    head = decoder_head({.prefix = "transformer",
                         .norm_name = "ln_f",
                         .norm_module = norm.ptr(),
                         .norm = [norm](const Tensor& x) mutable { return norm(x); },
                         .words = words_,
                         .tied = c.tie_word_embeddings,
                         .token_head_name = "classifier",
                         .token_dropout = c.classifier_dropout.value_or(c.hidden_dropout.value_or(0.1))},
                        task);
  }

 protected:
  Tensor embed(const Tensor& ids, const Tensor& positions) override {
    return nn::dropout(words_(ids) + places_(positions), dropout_, words_->is_training());
  }
  Tensor layer(int64_t index, const Tensor& x, const nn::CausalRows& rows, const nn::Rotation&) override {
    return layers_[index]->forward(x, rows);
  }

 private:
  double dropout_;
  nn::Embedding words_{nullptr}, places_{nullptr};
  std::vector<std::shared_ptr<BigCodeLayerImpl>> layers_;
};

std::shared_ptr<Model> create(const Json& json, const Task& task) {
  const auto c = read_config<BigCodeConfig>(json);
  check_heads(c.n_embd, c.n_head, 1, false);
  GRAFT_CHECK(model, !c.add_cross_attention,
              "config.json: add_cross_attention is true; graft runs `gpt_bigcode` as a decoder alone.");
  return std::make_shared<BigCodeModel>(c, task);
}

std::string class_name(const Task& task) {
  if (task.kind == "features") return "GPTBigCodeModel";
  if (task.kind == "tokens") return "GPTBigCodeForTokenClassification";
  if (task.kind == "causal_lm") return "GPTBigCodeForCausalLM";
  return "GPTBigCodeForSequenceClassification";
}

}  // namespace

Architecture gpt_bigcode() {
  return {
      .model_type = "gpt_bigcode",
      .prefix = "transformer",
      .create = create,
      .class_name = class_name,
      // The causal masks that older versions saved as buffers.
      .rules = {drop("*.attn.bias"), drop("*.attn.masked_bias"), drop("lm_head."), drop("score."), drop("classifier.")},
      .tied = {{"lm_head.weight", "transformer.wte.weight"}},
      .language_task = "causal_lm",
  };
}

}  // namespace graft::models
