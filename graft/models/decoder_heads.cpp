#include "graft/models/decoder_heads.h"

#include <utility>

#include "graft/models/language_head.h"
#include "graft/nn/chunked_cross_entropy.h"
#include "graft/nn/dropout.h"
#include "graft/nn/levels.h"
#include "graft/nn/tied_linear.h"

namespace graft::models {
namespace {

/// The final norm under its key, and what all heads of decoders read.
struct NormedHead : Head {
  explicit NormedHead(const DecoderEnd& end) : norm(end.norm) {
    nn::level(*this, end.prefix).register_module(end.norm_name, end.norm_module);
  }
  Reads reads() const override { return {Reads::Where::all}; }

  static const Activations& end_of(const std::map<std::string, Activations>& ends) { return ends.at("text"); }
  Tensor normed(const std::map<std::string, Activations>& ends) { return norm(end_of(ends).hidden.values); }

  std::function<Tensor(const Tensor&)> norm;
};

struct DecoderFeatures final : NormedHead {
  using NormedHead::NormedHead;
  Outputs forward(const std::map<std::string, Activations>& ends) override {
    return {{"last_hidden_state", normed(ends)}};
  }
};

struct SequenceScore final : NormedHead {
  SequenceScore(const DecoderEnd& end, int64_t num_labels) : NormedHead(end) {
    score = register_module("score", nn::Linear(end.words->weight.size(1), num_labels, false));
  }
  Reads reads() const override { return {Reads::Where::last}; }
  Outputs forward(const std::map<std::string, Activations>& ends) override {
    return {{"logits", score(normed(ends))}};  // (B, labels)
  }
  nn::Linear score{nullptr};
};

struct TokenScore final : NormedHead {
  TokenScore(const DecoderEnd& end, int64_t num_labels) : NormedHead(end), dropout(end.token_dropout) {
    score = register_module(end.token_head_name, nn::Linear(end.words->weight.size(1), num_labels));
  }
  Outputs forward(const std::map<std::string, Activations>& ends) override {
    return {{"logits", score(nn::dropout(normed(ends), dropout, is_training()))}};  // (N, labels)
  }
  nn::Linear score{nullptr};
  double dropout;
};

struct CausalLmHead final : NormedHead, LanguageHead {
  explicit CausalLmHead(const DecoderEnd& end) : NormedHead(end), words(end.words), tied(end.tied) {
    if (!tied) lm_head = register_module("lm_head", nn::Linear(words->weight.size(1), words->weight.size(0), false));
    else decoder = register_module("decoder", nn::TiedLinear(words->weight, Tensor()));
  }
  std::vector<std::string> uses() const override {
    return tied ? std::vector<std::string>{"embeddings"} : std::vector<std::string>{};
  }
  Outputs forward(const std::map<std::string, Activations>& ends) override {
    if (beside && torch::GradMode::is_enabled()) return {{"loss", joined_loss(ends)}};
    const auto x = normed(ends);  // (N, C)
    const auto& kept = end_of(ends).kept;
    if (const auto labels = kept.find("labels"); labels != kept.end()) {
      if (torch::GradMode::is_enabled())
        return {{"loss", nn::chunked_cross_entropy(x, matrix(), labels->second.values)}};
      const auto losses = nn::chunked_losses(x, matrix(), labels->second.values);  // (N)
      return {{"loss", losses.sum()}, {"losses", losses}};
    }
    return {{"logits", tied ? decoder(x) : lm_head(x)}};  // (N, V)
  }
  nn::LogitsOf projection(const std::map<std::string, Activations>& ends) override {
    auto rows = end_of(ends).hidden.values;
    const auto& kept = end_of(ends).kept;
    if (const auto labels = kept.find("labels"); labels != kept.end())
      rows = rows.index_select(0, labels->second.values.ge(0).nonzero().squeeze(1));
    return {norm(rows), matrix(), {}};
  }
  bool has_chunks() const override { return true; }
  /// The cross-entropy, with the gradient of both.
  Tensor joined_loss(const std::map<std::string, Activations>& ends) {
    const auto& labels = end_of(ends).kept.at("labels").values;
    const auto own = nn::cross_entropy_of(labels.masked_select(labels.ge(0)));
    const auto other = std::exchange(beside, nullptr);
    return nn::chunked_sum(projection(ends), [&](const nn::Block& block) {
      other(block);
      return own(block);
    });
  }
  Tensor matrix() const { return tied ? words->weight : lm_head->whole_weight(); }
  nn::Embedding words;
  nn::Linear lm_head{nullptr};
  nn::TiedLinear decoder{nullptr};
  bool tied;
};

}  // namespace

std::shared_ptr<Head> decoder_head(const DecoderEnd& end, const Task& task) {
  if (task.kind == "features") return std::make_shared<DecoderFeatures>(end);
  if (task.kind == "tokens") return std::make_shared<TokenScore>(end, task.num_labels);
  if (task.kind == "causal_lm") return std::make_shared<CausalLmHead>(end);
  return std::make_shared<SequenceScore>(end, task.num_labels);
}

}  // namespace graft::models
