#include "graft/models/encoder_heads.h"

#include "graft/nn/dropout.h"
#include "graft/nn/levels.h"

#include "graft/nn/chunked_cross_entropy.h"

#include "graft/models/language_head.h"

namespace graft::models {
namespace {

struct FeaturesHead final : Head {
  FeaturesHead(const std::string& prefix, int64_t hidden_size, bool with_pooler) {
    if (with_pooler) pooler = nn::place(*this, prefix + ".pooler", Pooler(hidden_size));
  }

  Reads reads() const override { return {Reads::Where::all}; }

  Outputs forward(const std::map<std::string, Activations>& ends) override {
    const auto& hidden = ends.begin()->second.hidden;
    Outputs outputs{{"last_hidden_state", hidden.values}};  // (N, C)
    if (pooler) {
      const auto first = resolve({Reads::Where::first}, hidden.lengths, hidden.values.device()).index;
      outputs["pooler_output"] = pooler(hidden.values.index_select(0, first));  // (B, C)
    }
    return outputs;
  }

  Pooler pooler{nullptr};
};

struct TokenHead final : Head {
  TokenHead(int64_t hidden_size, int64_t num_labels, double dropout) : dropout(dropout) {
    classifier = register_module("classifier", nn::Linear(hidden_size, num_labels));
  }

  Reads reads() const override { return {Reads::Where::all}; }

  Outputs forward(const std::map<std::string, Activations>& ends) override {
    const auto x = nn::dropout(ends.begin()->second.hidden.values, dropout, is_training());
    return {{"logits", classifier(x)}};  // (N, labels)
  }

  nn::Linear classifier{nullptr};
  double dropout;
};

struct MaskedLmHead final : Head, LanguageHead {
  MaskedLmHead(const MaskedLmKeys& keys, int64_t hidden_size, const std::string& act, double eps, nn::Embedding words)
      : layers(*this, keys, hidden_size, act, eps, std::move(words)) {}

  Reads reads() const override { return {Reads::Where::all}; }
  std::vector<std::string> uses() const override { return {"embeddings"}; }

  Outputs forward(const std::map<std::string, Activations>& ends) override {
    const auto& end = ends.begin()->second;
    return masked_lm_outputs(layers.transformed(end.hidden.values), layers.decoder, end);
  }
  nn::LogitsOf projection(const std::map<std::string, Activations>& ends) override {
    return {layers.transformed(ends.begin()->second.hidden.values), layers.words->weight, layers.bias};
  }

  MaskedLmLayers layers;
};

}  // namespace

std::string encoder_class_name(const std::string& stem, const Task& task) {
  if (task.kind == "features") return stem + "Model";
  if (task.kind == "tokens") return stem + "ForTokenClassification";
  if (task.kind == "masked_lm") return stem + "ForMaskedLM";
  return stem + "ForSequenceClassification";
}

MaskedLmLayers::MaskedLmLayers(torch::nn::Module& owner, const MaskedLmKeys& keys, int64_t hidden_size,
                               const std::string& act, double eps, nn::Embedding words)
    : words(std::move(words)), act(nn::activation(act, "config.json")) {
  const auto V = this->words->weight.size(0), E = this->words->weight.size(1);
  bias = nn::place_parameter(owner, keys.bias + ".bias", torch::zeros({V}));
  auto& transform = nn::level(owner, keys.transform);
  dense = transform.register_module("dense", nn::Linear(hidden_size, E));
  norm = transform.register_module(keys.norm, nn::LayerNorm(E, eps));
  decoder = transform.register_module("decoder", nn::TiedLinear(this->words->weight, bias));
}

Tensor MaskedLmLayers::transformed(const Tensor& hidden) { return norm(act(dense(hidden))); }

Tensor MaskedLmLayers::logits(const Tensor& hidden) { return decoder(transformed(hidden)); }

Outputs masked_lm_outputs(const Tensor& x, nn::TiedLinear& decoder, const Activations& end) {
  if (const auto labels = end.kept.find("labels"); labels != end.kept.end())
    return {{"loss", nn::chunked_cross_entropy(x, decoder->weight, labels->second.values, 0, decoder->bias)}};
  return {{"logits", decoder(x)}};  // (N, V)
}

void pass_labels(Activations& from, Activations& to) {
  if (auto labels = from.kept.extract("labels")) to.kept.insert(std::move(labels));
}

std::shared_ptr<Head> masked_lm_head(const MaskedLmKeys& keys, int64_t hidden_size, const std::string& act, double eps,
                                     nn::Embedding words) {
  return std::make_shared<MaskedLmHead>(keys, hidden_size, act, eps, std::move(words));
}

PoolerImpl::PoolerImpl(int64_t hidden_size) { dense = register_module("dense", nn::Linear(hidden_size, hidden_size)); }

Tensor PoolerImpl::forward(const Tensor& x) { return torch::tanh(dense(x)); }

std::shared_ptr<Head> features_head(const std::string& prefix, int64_t hidden_size, bool with_pooler) {
  return std::make_shared<FeaturesHead>(prefix, hidden_size, with_pooler);
}

std::shared_ptr<Head> token_head(int64_t hidden_size, int64_t num_labels, double dropout) {
  return std::make_shared<TokenHead>(hidden_size, num_labels, dropout);
}

}  // namespace graft::models
