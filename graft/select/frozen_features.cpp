#include "graft/select/frozen_features.h"

#include <torch/types.h>

#include <algorithm>

#include "graft/select/sample.h"
#include "graft/train/supervised.h"

namespace graft::select {
namespace {

constexpr int64_t kBatch = 512;  // examples read at a time

Tensor in_memory(const Tensor& values) { return values.to(torch::kCPU, torch::kFloat32); }

/// [n, d] of all parts, each around its mean and with a total variance of 1, so that none outweighs another by its scale.
Tensor balanced(std::vector<Tensor> parts) {
  if (parts.size() == 1) return parts.front();
  for (auto& part : parts) {
    part = part - part.mean(0, true);
    const auto variance = part.square().sum() / part.size(0);
    part = part / at::where(variance > 0, variance.sqrt(), at::ones_like(variance));
  }
  return torch::cat(parts, 1);
}

/// Labelled words of a batch whose first tokens a source sees: the rows of these tokens, which words they are, their labels.
struct LabelledWords {
  std::vector<int64_t> rows, keys, labels;
};

LabelledWords labelled_words(const data::Examples& examples, const data::Ragged<int32_t>& first_tokens,
                             const features::Inputs& inputs, const std::vector<int64_t>& batch) {
  LabelledWords found;
  int64_t start = 0;
  for (const auto example : batch) {
    const auto first = first_tokens[example];
    const auto words = examples.label_sets[example];
    for (size_t w = 0; w < words.size(); ++w) {
      if (first[w] < 0) continue;
      found.rows.push_back(start + first[w]);
      found.keys.push_back(word_key(example, static_cast<int64_t>(w)));
      found.labels.push_back(words[w]);
    }
    start += inputs.length(example);
  }
  return found;
}

/// At most `most` of the words that this source sees, rare labels kept.
std::vector<int64_t> chosen_words(const data::Examples& examples, const train::Alignment& alignment, int64_t labels,
                                  int64_t most, uint64_t seed) {
  data::Examples words;
  std::vector<int64_t> keys;
  for (int64_t i = 0; i < examples.label_sets.size(); ++i) {
    const auto first = (*alignment.first_tokens)[i];
    for (size_t w = 0; w < first.size(); ++w)
      if (first[w] >= 0) {
        keys.push_back(word_key(i, static_cast<int64_t>(w)));
        words.labels.push_back(examples.label_sets[i][w]);
      }
  }
  std::vector<int64_t> chosen;
  for (const auto i : sample_examples(words, "classification", labels, most, seed)) chosen.push_back(keys[i]);
  return chosen;
}

/// The rows of `source` at these places, in their order.
void keep(FrozenFeatures& source, const std::vector<int64_t>& places) {
  const auto rows = torch::tensor(places, torch::kInt64);
  source.values = source.values.index_select(0, rows);
  source.targets.classes = source.targets.classes.index_select(0, rows);
  std::vector<int64_t> words;
  for (const auto place : places) words.push_back(source.words[place]);
  source.words = std::move(words);
}

}  // namespace

std::optional<int64_t> mean_boundary(const models::Chain& chain, const std::string& task) {
  const auto last = static_cast<int64_t>(chain.blocks.size()) - 1;
  return task == "tokens" || last == 0 ? std::nullopt : std::optional(last);
}

void keep_common_words(const std::vector<FrozenFeatures*>& sources) {
  std::map<int64_t, size_t> seen;
  for (const auto* source : sources)
    for (const auto word : source->words) ++seen[word];
  for (auto* source : sources) {
    std::vector<int64_t> places;
    for (size_t i = 0; i < source->words.size(); ++i)
      if (seen.at(source->words[i]) == sources.size()) places.push_back(static_cast<int64_t>(i));
    if (places.size() < source->words.size()) keep(*source, places);
  }
}

FrozenFeatures frozen_features(models::Model& model, const features::Feed& feed, const std::string& task,
                               const std::vector<std::string>& label_names, const data::Examples& examples,
                               const train::Alignment& alignment, models::Head* classifier, int64_t most, uint64_t seed,
                               std::vector<int64_t>& words) {
  const torch::NoGradGuard no_grad;
  if (task == "tokens" && words.empty())
    words = chosen_words(examples, alignment, static_cast<int64_t>(label_names.size()), most, seed);
  const auto reads = model.head->reads();
  std::vector<std::vector<Tensor>> values;  // by part: of each batch
  std::vector<Tensor> probabilities;
  std::vector<int64_t> labels, keys;
  const auto n = examples.size();
  for (int64_t begin = 0; begin < n; begin += kBatch) {
    std::vector<int64_t> batch;
    for (auto i = begin; i < std::min(n, begin + kBatch); ++i) batch.push_back(i);
    std::map<std::string, models::Activations> ends;
    for (const auto& chain : model.chains)
      ends[chain.name] = feed.enter(chain.name, static_cast<int64_t>(chain.blocks.size()), batch, reads);
    std::vector<Tensor> parts;
    if (task == "tokens") {
      const auto found = labelled_words(examples, *alignment.first_tokens, feed.inputs(), batch);
      std::vector<int64_t> rows;
      for (size_t i = 0; i < found.rows.size(); ++i) {
        if (!std::binary_search(words.begin(), words.end(), found.keys[i])) continue;
        rows.push_back(found.rows[i]);
        keys.push_back(found.keys[i]);
        labels.push_back(found.labels[i]);
      }
      for (const auto& [name, end] : ends)
        parts.push_back(in_memory(end.hidden.values).index_select(0, torch::tensor(rows, torch::kInt64)));
    } else {
      for (const auto& [name, end] : ends) {
        parts.push_back(in_memory(models::mean_of(end.hidden)));
        if (const auto boundary = mean_boundary(model.chain(name), task))
          parts.push_back(in_memory(feed.mean(name, *boundary, batch)));
      }
    }
    values.resize(parts.size());
    for (size_t p = 0; p < parts.size(); ++p) values[p].push_back(parts[p]);
    if (classifier) probabilities.push_back(classifier->forward(ends).at("logits").softmax(1).cpu());
  }
  std::vector<Tensor> parts;
  for (const auto& of_batches : values) parts.push_back(torch::cat(of_batches));
  FrozenFeatures result{.values = balanced(std::move(parts))};
  if (classifier) result.probabilities = torch::cat(probabilities);
  if (task == "regression" || task == "multilabel") {
    const train::Supervised stream(model, feed, task, label_names, examples);
    result.targets.values = stream.targets().targets.to(torch::kFloat64);
    return result;
  }
  if (task != "tokens") labels = examples.labels;
  result.words = std::move(keys);
  result.targets.classes = torch::tensor(labels, torch::kInt64);
  return result;
}

}  // namespace graft::select
