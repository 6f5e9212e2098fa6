#include "graft/select/frozen_features.h"

#include <torch/types.h>

#include "graft/core/error.h"
#include "graft/train/supervised.h"

namespace graft::select {
namespace {

constexpr int64_t kFewest = 5;   // the folds of the linear probe
constexpr int64_t kBatch = 512;  // examples read at a time

/// (B, C) from rows (N, C) or maps (B, C, H, W).
Tensor pooled(const models::Rows& rows) {
  auto values = rows.values.to(torch::kFloat32);
  if (values.dim() > 2) values = values.flatten(2).mean(2);
  const auto B = static_cast<int64_t>(rows.lengths.size());
  if (values.size(0) == B) return values;
  const auto lengths = torch::tensor(rows.lengths, torch::kInt64);
  const auto example = torch::repeat_interleave(lengths);
  return torch::zeros({B, values.size(1)}).index_add(0, example, values) / lengths.unsqueeze(1);
}

/// Rows of a batch that are first tokens of labelled words, with the labels.
std::pair<std::vector<int64_t>, std::vector<int64_t>> labelled_rows(const data::Examples& examples,
                                                                    const data::Ragged<int32_t>& first_tokens,
                                                                    const features::Inputs& inputs,
                                                                    const std::vector<int64_t>& batch) {
  std::vector<int64_t> rows, labels;
  int64_t start = 0;
  for (const auto example : batch) {
    const auto first = first_tokens[example];
    const auto words = examples.label_sets[example];
    for (size_t w = 0; w < words.size(); ++w)
      if (first[w] >= 0) rows.push_back(start + first[w]), labels.push_back(words[w]);
    start += inputs.length(example);
  }
  return {rows, labels};
}

}  // namespace

void expect_enough(const std::vector<int64_t>& labels, const std::vector<std::string>& label_names) {
  std::vector<int64_t> counts(label_names.size(), 0);
  for (const auto label : labels) ++counts.at(label);
  std::vector<std::string> few;
  for (size_t i = 0; i < counts.size(); ++i)
    if (counts[i] < kFewest) few.push_back(fmt::format("{} ({})", label_names[i], counts[i]));
  GRAFT_CHECK(
      data, few.empty(),
      "too few training examples to measure sources with: {} of each class are needed, and these have fewer: {}. "
      "Add examples, merge or remove the classes, or name a source yourself.",
      kFewest, listed(few));
}

FrozenFeatures frozen_features(models::Model& model, const features::Feed& feed, const std::string& task,
                               const std::vector<std::string>& label_names, const data::Examples& examples,
                               const train::Alignment& alignment, models::Head* classifier, int64_t most,
                               uint64_t seed) {
  const torch::NoGradGuard no_grad;
  const auto reads = model.head->reads();
  std::vector<Tensor> values, probabilities;
  std::vector<int64_t> labels;
  const auto n = examples.size();
  for (int64_t begin = 0; begin < n; begin += kBatch) {
    std::vector<int64_t> batch;
    for (auto i = begin; i < std::min(n, begin + kBatch); ++i) batch.push_back(i);
    std::map<std::string, models::Activations> ends;
    for (const auto& chain : model.chains)
      ends[chain.name] = feed.enter(chain.name, static_cast<int64_t>(chain.blocks.size()), batch, reads);
    std::vector<Tensor> parts;
    if (task == "tokens") {
      const auto [rows, found] = labelled_rows(examples, *alignment.first_tokens, feed.inputs(), batch);
      for (const auto& [name, end] : ends)
        parts.push_back(end.hidden.values.to(torch::kFloat32).index_select(0, torch::tensor(rows, torch::kInt64)));
      labels.insert(labels.end(), found.begin(), found.end());
    } else {
      for (const auto& [name, end] : ends) parts.push_back(pooled(end.hidden));
    }
    values.push_back(torch::cat(parts, 1).cpu());
    if (classifier) probabilities.push_back(classifier->forward(ends).at("logits").softmax(1).cpu());
  }
  FrozenFeatures result{.values = torch::cat(values)};
  if (classifier) result.probabilities = torch::cat(probabilities);
  if (task == "regression" || task == "multilabel") {
    const train::Supervised stream(model, feed, task, label_names, examples);
    result.targets.values = stream.targets().targets.to(torch::kFloat64);
    return result;
  }
  if (task != "tokens") labels = examples.labels;
  if (task == "tokens" && static_cast<int64_t>(labels.size()) > most) {
    const auto chosen = train::sample(static_cast<int64_t>(labels.size()), most, seed);
    std::vector<int64_t> kept;
    for (const auto i : chosen) kept.push_back(labels[i]);
    labels = std::move(kept);
    result.values = result.values.index_select(0, torch::tensor(chosen, torch::kInt64));
  }
  expect_enough(labels, label_names);
  result.targets.classes = torch::tensor(labels, torch::kInt64);
  return result;
}

}  // namespace graft::select
