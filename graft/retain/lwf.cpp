#include "graft/retain/lwf.h"

#include <algorithm>

namespace graft::retain {

Lwf::Lwf(Answers answers, std::string task, std::shared_ptr<models::Head> old_head, const LwfOptions& options)
    : answers_(std::move(answers)),
      task_(std::move(task)),
      old_head_(std::move(old_head)),
      weight_(options.weight),
      temperature_(options.temperature) {}

Tensor Lwf::value(const train::Step& step) {
  const bool learns = std::any_of(step.ends.begin(), step.ends.end(),
                                  [](const auto& item) { return item.second.hidden.values.requires_grad(); });
  if (!learns && (old_head_ || !answers_.logits)) return {};
  if (!answers_.logits) {
    const auto now = mean_features(step.ends).to(torch::kFloat32);
    return weight_ * (1 - torch::cosine_similarity(now, answers_.of(step.examples).to(now.device()), 1)).mean();
  }
  const auto now =
      (old_head_ ? old_head_->forward(step.ends).at("logits") : step.outputs.at("logits")).to(torch::kFloat32);
  const auto then = answers_.of(step.examples).to(now.device());
  if (task_ == "multilabel") return weight_ * torch::binary_cross_entropy_with_logits(now, then.sigmoid());
  if (task_ == "regression") return weight_ * torch::mse_loss(now, then);
  const auto softened = (then / temperature_).softmax(1);
  return -weight_ * (softened * (now / temperature_).log_softmax(1)).sum(1).mean();
}

}  // namespace graft::retain
