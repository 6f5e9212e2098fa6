#include "graft/train/supervised.h"

#include <algorithm>
#include <numeric>

#include "graft/core/random.h"
#include "graft/models/device.h"

namespace graft::train {

Supervised::Supervised(models::Model& model, const features::Feed& feed, const std::string& task,
                       const std::vector<std::string>& label_names, const data::Examples& examples,
                       const data::Ragged<int32_t>* first_tokens)
    : model_(model),
      feed_(feed),
      task_(task),
      label_names_(label_names),
      examples_(examples),
      first_tokens_(first_tokens) {}

int64_t Supervised::rows(int64_t example) const {
  int64_t rows = 0;
  for (const auto& chain : model_.chains) rows += feed_.rows(chain.name, model_.boundary(chain.name), example);
  return rows;
}

namespace {

/// The plain view for evaluation, another one in each epoch.
uint64_t view_of(uint64_t epoch) { return epoch == kEvaluation ? 0 : epoch + 1; }

}  // namespace

void Supervised::expect(const std::vector<int64_t>& examples, uint64_t epoch) const {
  for (const auto& chain : model_.chains)
    if (const auto boundary = model_.boundary(chain.name); !feed_.stored_up_to(chain.name, boundary))
      feed_.inputs().expect(examples, boundary == 0 ? view_of(epoch) : 0);
}

std::map<std::string, Activations> Supervised::enter(const std::vector<int64_t>& examples, uint64_t epoch) const {
  std::map<std::string, Activations> entering;
  for (const auto& chain : model_.chains)
    entering[chain.name] =
        feed_.enter(chain.name, model_.boundary(chain.name), examples, model_.head->reads(), view_of(epoch));
  return entering;
}

std::pair<std::vector<int64_t>, std::vector<int64_t>> Supervised::labelled_tokens(
    const std::vector<int64_t>& examples) const {
  std::vector<int64_t> rows, labels;
  int64_t start = 0;
  for (const auto example : examples) {
    const auto first = (*first_tokens_)[example];
    const auto words = examples_.label_sets[example];
    for (size_t w = 0; w < words.size(); ++w)
      if (first[w] >= 0) rows.push_back(start + first[w]), labels.push_back(words[w]);
    start += feed_.inputs().length(example);
  }
  return {rows, labels};
}

Tensor Supervised::target_tensor(const std::vector<int64_t>& examples) const {
  if (task_ == "regression") {
    std::vector<float> values;
    for (const auto i : examples) values.push_back(static_cast<float>(examples_.values[i]));
    return torch::tensor(values);
  }
  if (task_ == "multilabel") {
    const auto hot = torch::zeros({static_cast<int64_t>(examples.size()), static_cast<int64_t>(label_names_.size())});
    for (size_t row = 0; row < examples.size(); ++row)
      for (const auto label : examples_.label_sets[examples[row]]) hot[row][label] = 1;
    return hot;
  }
  std::vector<int64_t> labels;
  for (const auto i : examples) labels.push_back(examples_.labels[i]);
  return torch::tensor(labels, torch::kInt64);
}

double Supervised::weight(const std::vector<int64_t>& examples, uint64_t) const {
  return task_ == "tokens" ? labelled_tokens(examples).second.size() : examples.size();
}

Tensor Supervised::loss_sum(const Outputs& outputs, const std::vector<int64_t>& examples, uint64_t epoch) const {
  const bool views = std::all_of(model_.chains.begin(), model_.chains.end(),
                                 [&](const auto& chain) { return model_.boundary(chain.name) == 0; });
  const auto blend = views ? feed_.inputs().blend(examples, view_of(epoch)) : std::nullopt;
  if (!blend) return loss_of(outputs, examples);
  std::vector<int64_t> partners;
  for (const auto place : blend->partners) partners.push_back(examples[place]);
  return blend->share * loss_of(outputs, examples) + (1 - blend->share) * loss_of(outputs, partners);
}

Tensor Supervised::loss_of(const Outputs& outputs, const std::vector<int64_t>& examples) const {
  const auto logits = outputs.at("logits").to(torch::kFloat32);
  const auto device = logits.device();
  if (task_ == "tokens") {
    const auto [rows, labels] = labelled_tokens(examples);
    const auto chosen = logits.index_select(0, models::placed(torch::tensor(rows, torch::kInt64), device));
    return at::cross_entropy_loss(chosen, models::placed(torch::tensor(labels, torch::kInt64), device), {},
                                  at::Reduction::Sum);
  }
  const auto target = models::placed(target_tensor(examples), device);
  if (task_ == "regression") return (logits.squeeze(1) - target).square().sum();
  if (task_ == "multilabel")  // transformers averages over the labels too
    return at::binary_cross_entropy_with_logits(logits, target, {}, {}, at::Reduction::Sum) / logits.size(1);
  return at::cross_entropy_loss(logits, target, {}, at::Reduction::Sum);
}

Predictions Supervised::targets() const {
  Predictions p{.task = task_, .label_names = label_names_};
  std::vector<int64_t> all(size());
  std::iota(all.begin(), all.end(), 0);
  if (task_ == "tokens") {
    for (const auto i : all)
      p.token_target.emplace_back(examples_.label_sets[i].begin(), examples_.label_sets[i].end());
  } else {
    p.targets = target_tensor(all);
  }
  return p;
}

Predictions Supervised::predictions() const {
  Predictions p{.task = task_, .label_names = label_names_};
  if (task_ == "tokens") {
    p.token_predicted.resize(size());
    p.token_target.resize(size());
  } else {
    p.targets = targets().targets;
    p.scores = torch::zeros({size(), task_ == "regression" ? 1 : static_cast<int64_t>(label_names_.size())});
  }
  return p;
}

void Supervised::collect(const Outputs& outputs, const std::vector<int64_t>& examples, Predictions& into) const {
  const auto logits = outputs.at("logits").to(torch::kCPU, torch::kFloat32);
  if (task_ != "tokens") {
    into.scores.index_copy_(0, torch::tensor(examples, torch::kInt64), logits);
    return;
  }
  const auto best = logits.argmax(1);
  int64_t start = 0;
  for (const auto example : examples) {
    const auto first = (*first_tokens_)[example];
    const auto words = examples_.label_sets[example];
    for (size_t w = 0; w < words.size(); ++w) {
      if (first[w] < 0) continue;
      into.token_predicted[example].push_back(best[start + first[w]].item<int64_t>());
      into.token_target[example].push_back(words[w]);
    }
    start += feed_.inputs().length(example);
  }
}

std::vector<int64_t> sample(int64_t size, int64_t count, uint64_t seed) {
  std::vector<int64_t> order(size);
  std::iota(order.begin(), order.end(), 0);
  Random(seed).shuffle(order);
  order.resize(std::min(size, count));
  std::sort(order.begin(), order.end());
  return order;
}

}  // namespace graft::train
