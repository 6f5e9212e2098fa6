// RoBERTa: BERT's encoder with positions that are counted from the padding id, and heads of its own.
// Paper:    Liu et al. 2019, https://arxiv.org/abs/1907.11692
// Weights:  transformers `roberta` (RoBERTa, CodeBERT, the domain-adapted RoBERTas); keys are its keys.
// Parity:   tests/parity/roberta-*, transformers 5.17: outputs and gradients (tests/models/parity_test.cpp).
// Differs:  attention by scaled_dot_product_attention without padded tokens; the reference pads and masks.
// Shapes:   B examples, N tokens, C channels, V vocabulary.
#include "graft/models/architectures.h"
#include "graft/models/encoder_heads.h"
#include "graft/models/post_norm_model.h"
#include "graft/nn/dropout.h"
#include "graft/nn/levels.h"

namespace graft::models {
namespace {

/// The library's defaults, not those of the published files: a config that is silent means these.
PostNormConfig defaults() {
  PostNormConfig c;
  c.vocab_size = 50265;
  c.pad_token_id = 1;
  c.pad_has_position = true;
  return c;
}

struct RobertaModel final : PostNormModel {
  using PostNormModel::PostNormModel;

  int64_t max_tokens() const override { return config.max_position_embeddings - config.pad_token_id - 1; }

  /// Tokens other than padding are numbered from pad + 1; padding tokens, also inside a text, have the position `pad`.
  void positions(const int64_t* ids, int64_t count, int64_t* out) const override {
    const auto pad = config.pad_token_id;
    int64_t seen = 0;
    for (int64_t i = 0; i < count; ++i) out[i] = ids[i] == pad ? pad : pad + ++seen;
  }
};

/// dropout, dense, tanh, dropout, projection on the first token.
struct RobertaSequenceHead final : Head {
  RobertaSequenceHead(const PostNormConfig& c, int64_t num_labels) : dropout(c.head_dropout()) {
    dense = nn::place(*this, "classifier.dense", nn::Linear(c.hidden_size, c.hidden_size));
    out_proj = nn::place(*this, "classifier.out_proj", nn::Linear(c.hidden_size, num_labels));
  }

  Reads reads() const override { return {Reads::Where::first}; }

  Outputs forward(const std::map<std::string, Activations>& ends) override {
    const auto drop = [&](const Tensor& x) { return nn::dropout(x, dropout, is_training()); };
    const auto x = torch::tanh(dense(drop(ends.at("text").hidden.values)));  // (B, C)
    return {{"logits", out_proj(drop(x))}};                                  // (B, labels)
  }

  nn::Linear dense{nullptr}, out_proj{nullptr};
  double dropout;
};

std::shared_ptr<Model> create(const Json& json, const Task& task) {
  const auto c = read_config(json, defaults());
  const auto model = std::make_shared<RobertaModel>("roberta", c);
  if (task.kind == "features") model->head = features_head("roberta", c.hidden_size, true);
  else if (task.kind == "tokens") model->head = token_head(c.hidden_size, task.num_labels, c.head_dropout());
  else if (task.kind == "masked_lm")
    model->head = masked_lm_head({"lm_head", "lm_head", "layer_norm"}, c.hidden_size, "gelu", c.layer_norm_eps,
                                 model->encoder->embeddings->word_embeddings);
  else model->head = std::make_shared<RobertaSequenceHead>(c, task.num_labels);
  return model;
}

std::string class_name(const Task& task) { return encoder_class_name("Roberta", task); }

}  // namespace

Architecture roberta() {
  return {
      .model_type = "roberta",
      .prefix = "roberta",
      .create = create,
      .class_name = class_name,
      .rules = {drop("*.position_ids"), drop("lm_head."), drop("classifier."), drop("roberta.pooler.")},
      .tied = {{"lm_head.decoder.weight", "roberta.embeddings.word_embeddings.weight"},
               {"lm_head.decoder.bias", "lm_head.bias"}},
  };
}

}  // namespace graft::models
