#include "graft/retain/lwf.h"

#include "graft/core/error.h"
#include "graft/core/interrupt.h"

namespace graft::retain {
namespace {

/// The mean of each example's rows, chains side by side: (B, C).
Tensor mean_features(const train::Ends& ends) {
  std::vector<Tensor> parts;
  for (const auto& item : ends) {
    const auto& hidden = item.second.hidden;
    const auto B = static_cast<int64_t>(hidden.lengths.size());
    const auto rows = hidden.values.dim() == 4 ? hidden.values.mean({2, 3}) : hidden.values;
    if (rows.size(0) == B) {
      parts.push_back(rows);
      continue;
    }
    std::vector<int64_t> examples;
    int64_t total = 0;
    for (const auto n : hidden.lengths) total += n;
    const auto factor = rows.size(0) / total;  // patches of an image, whose lengths are 1
    for (int64_t n = 0; n < B; ++n) examples.insert(examples.end(), hidden.lengths[n] * factor, n);
    const auto index = torch::tensor(examples, torch::kInt64).to(rows.device());
    auto counts = torch::zeros({B}, rows.options()).index_add_(0, index, torch::ones({rows.size(0)}, rows.options()));
    parts.push_back(torch::zeros({B, rows.size(1)}, rows.options()).index_add(0, index, rows) /
                    counts.clamp_min(1).unsqueeze(1));
  }
  return torch::cat(parts, 1);
}

}  // namespace

Lwf::Lwf(models::Model& source, const features::Inputs& inputs, const models::Reads& reads, bool classes, bool own_head,
         const LwfOptions& options, int64_t capture_rows)
    : old_head_(own_head ? nullptr : source.head), weight_(options.weight), temperature_(options.temperature) {
  const torch::NoGradGuard no_grad;
  source.eval();
  const bool answers = classes && source.head->reads().where == reads.where;
  std::vector<Tensor> parts;
  for (int64_t i = 0; i < inputs.size();) {
    stop_if_interrupted();
    std::vector<int64_t> batch;
    for (int64_t sum = 0; i < inputs.size() && (batch.empty() || sum + inputs.length(i) <= capture_rows); ++i) {
      batch.push_back(i);
      sum += inputs.length(i);
    }
    train::Ends ends;
    for (const auto& chain : source.chains) {
      auto x = inputs.batch(chain.name, batch);
      for (const auto& up : chain.upstream) x.kept[up] = ends.at(up).hidden;
      ends[chain.name] = source.forward(chain.name, 0, static_cast<int64_t>(chain.blocks.size()), std::move(x), reads);
    }
    parts.push_back(answers ? source.head->forward(ends).at("logits").to(torch::kFloat32) : mean_features(ends));
  }
  (answers ? logits_ : features_) = torch::cat(parts);
}

Tensor Lwf::value(const train::Step& step) {
  const auto index = torch::tensor(step.examples, torch::kInt64);
  const auto learns = [](const train::Ends& ends) {
    for (const auto& item : ends)
      if (item.second.hidden.values.requires_grad()) return true;
    return false;
  };
  if (!logits_.defined()) {
    if (!learns(step.ends)) return {};
    const auto now = mean_features(step.ends).to(torch::kFloat32), then = features_.index_select(0, index);
    return weight_ * (1 - torch::cosine_similarity(now, then, 1)).mean();
  }
  if (old_head_ && !learns(step.ends)) return {};
  const auto logits = old_head_ ? old_head_->forward(step.ends).at("logits") : step.outputs.at("logits");
  const auto then = (logits_.index_select(0, index) / temperature_).softmax(1);
  return -weight_ * (then * (logits.to(torch::kFloat32) / temperature_).log_softmax(1)).sum(1).mean();
}

}  // namespace graft::retain
