#include "graft/models/encoder_heads.h"

namespace graft::models {
namespace {

struct FeaturesHead final : Head {
  FeaturesHead(const std::string& prefix, int64_t hidden_size, bool with_pooler) {
    if (with_pooler) pooler = register_below(*this, prefix, "pooler", Pooler(hidden_size));
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
    const auto x = torch::dropout(ends.begin()->second.hidden.values, dropout, is_training());
    return {{"logits", classifier(x)}};  // (N, labels)
  }

  nn::Linear classifier{nullptr};
  double dropout;
};

}  // namespace

PoolerImpl::PoolerImpl(int64_t hidden_size) { dense = register_module("dense", nn::Linear(hidden_size, hidden_size)); }

Tensor PoolerImpl::forward(const Tensor& x) { return torch::tanh(dense(x)); }

std::shared_ptr<Head> features_head(const std::string& prefix, int64_t hidden_size, bool with_pooler) {
  return std::make_shared<FeaturesHead>(prefix, hidden_size, with_pooler);
}

std::shared_ptr<Head> token_head(int64_t hidden_size, int64_t num_labels, double dropout) {
  return std::make_shared<TokenHead>(hidden_size, num_labels, dropout);
}

}  // namespace graft::models
