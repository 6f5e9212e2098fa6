// BERT: a post-norm encoder with learned absolute positions.
// Paper:    Devlin et al. 2019, https://arxiv.org/abs/1810.04805
// Weights:  transformers `bert` (BERT, SciBERT, BioMedBERT, LegalBERT, BioClinicalBERT, MiniLM); keys are its keys.
// Parity:   tests/parity/bert-*, transformers 5.17: outputs and gradients (tests/models/parity_test.cpp).
// Differs:  attention by scaled_dot_product_attention without padded tokens; the reference pads and masks.
// Shapes:   B examples, N tokens, C channels, V vocabulary.
#include "graft/models/architectures.h"
#include "graft/models/encoder_heads.h"
#include "graft/models/post_norm_model.h"
#include "graft/nn/dropout.h"
#include "graft/nn/levels.h"

namespace graft::models {
namespace {

/// Pooler on the first token, dropout, classifier.
struct BertSequenceHead final : Head {
  BertSequenceHead(const PostNormConfig& c, int64_t num_labels) : dropout(c.head_dropout()) {
    pooler = nn::place(*this, "bert.pooler", Pooler(c.hidden_size));
    classifier = register_module("classifier", nn::Linear(c.hidden_size, num_labels));
  }

  Reads reads() const override { return {Reads::Where::first}; }

  Outputs forward(const std::map<std::string, Activations>& ends) override {
    const auto pooled = pooler(ends.at("text").hidden.values);                     // (B, C)
    return {{"logits", classifier(nn::dropout(pooled, dropout, is_training()))}};  // (B, labels)
  }

  Pooler pooler{nullptr};
  nn::Linear classifier{nullptr};
  double dropout;
};

std::shared_ptr<Model> create(const Json& json, const Task& task) {
  const auto c = read_config<PostNormConfig>(json);
  const auto model = std::make_shared<PostNormModel>("bert", c);
  if (task.kind == "features") model->head = features_head("bert", c.hidden_size, true);
  else if (task.kind == "tokens") model->head = token_head(c.hidden_size, task.num_labels, c.head_dropout());
  else if (task.kind == "masked_lm")
    model->head =
        masked_lm_head({}, c.hidden_size, c.hidden_act, c.layer_norm_eps, model->encoder->embeddings->word_embeddings);
  else model->head = std::make_shared<BertSequenceHead>(c, task.num_labels);
  return model;
}

std::string class_name(const Task& task) { return encoder_class_name("Bert", task); }

}  // namespace

Architecture bert() {
  return {
      .model_type = "bert",
      .prefix = "bert",
      .create = create,
      .class_name = class_name,
      .rules = {drop("*.position_ids"), drop("cls."), drop("classifier."), drop("bert.pooler.")},
      .tied = {{"cls.predictions.decoder.weight", "bert.embeddings.word_embeddings.weight"},
               {"cls.predictions.decoder.bias", "cls.predictions.bias"}},
  };
}

}  // namespace graft::models
