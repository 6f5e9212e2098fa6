#include "graft/models/image_heads.h"

#include "graft/core/error.h"
#include "graft/nn/dropout.h"
#include "graft/nn/levels.h"

namespace graft::models {
namespace {

/// (B, C), or (B, 2C) for first_and_patches.
Tensor pooled(const Rows& hidden, const ImageHeadOptions& o) {
  const auto& x = hidden.values;
  if (o.pooling == Pooling::map) return x.contiguous().mean({2, 3});  // stored or not, summed in one order
  const auto B = static_cast<int64_t>(hidden.lengths.size());
  const auto tokens = x.view({B, x.size(0) / B, -1});  // images of a batch have one size
  const auto mean = [&] { return tokens.narrow(1, o.special_tokens, tokens.size(1) - o.special_tokens).mean(1); };
  if (o.pooling == Pooling::patches) return mean();
  const auto first = tokens.select(1, 0);
  return o.pooling == Pooling::first_and_patches ? torch::cat({first, mean()}, 1) : first;
}

struct ImageClassifier final : Head {
  ImageClassifier(const ImageHeadOptions& o, int64_t num_labels) : options(o) {
    if (!o.norm.empty()) norm = nn::place(*this, o.norm, nn::LayerNorm(o.width, o.norm_eps));
    const auto width = o.pooling == Pooling::first_and_patches ? 2 * o.width : o.width;
    classifier = nn::place(*this, o.classifier, nn::Linear(width, num_labels));
  }

  Reads reads() const override { return {options.pooling == Pooling::first ? Reads::Where::first : Reads::Where::all}; }

  Outputs forward(const std::map<std::string, Activations>& ends) override {
    auto x = pooled(ends.at("image").hidden, options);
    if (norm) x = norm(x);
    return {{"logits", classifier(nn::dropout(x, options.dropout, is_training()))}};
  }

  ImageHeadOptions options;
  nn::LayerNorm norm{nullptr};
  nn::Linear classifier{nullptr};
};

struct ImageFeatures final : Head {
  ImageFeatures(const ImageHeadOptions& o, const std::string& pooler_key) : options(o) {
    if (!pooler_key.empty()) pooler = nn::place(*this, pooler_key, nn::Linear(o.width, o.width));
  }

  Reads reads() const override { return {Reads::Where::all}; }

  Outputs forward(const std::map<std::string, Activations>& ends) override {
    const auto& hidden = ends.at("image").hidden;
    Outputs outputs{{"last_hidden_state", hidden.values}};
    if (options.pooling == Pooling::none) return outputs;
    const auto x = pooled(hidden, options);
    outputs["pooler_output"] = pooler ? torch::tanh(pooler(x)) : x;
    if (options.pooling == Pooling::map) outputs["pooler_output"] = x.unsqueeze(-1).unsqueeze(-1);  // (B, C, 1, 1)
    return outputs;
  }

  ImageHeadOptions options;
  nn::Linear pooler{nullptr};
};

}  // namespace

std::shared_ptr<Head> image_classifier(const ImageHeadOptions& options, int64_t num_labels) {
  return std::make_shared<ImageClassifier>(options, num_labels);
}

std::shared_ptr<Head> image_features(const ImageHeadOptions& options, const std::string& pooler) {
  return std::make_shared<ImageFeatures>(options, pooler);
}

}  // namespace graft::models
