// Labelled examples as a stream: classification, several labels, regression, labels on words.
// Losses as transformers computes them: cross-entropy, binary cross-entropy, squared error.
#pragma once

#include "graft/data/dataset.h"
#include "graft/features/feed.h"
#include "graft/train/stream.h"

namespace graft::train {

class Supervised final : public Stream {
 public:
  /// `feed` gives what enters the boundary; `first_tokens` is wanted for labels on words (place of each word's first
  /// token, -1 where it was cut off). All must outlive this.
  Supervised(models::Model& model, const features::Feed& feed, const std::string& task,
             const std::vector<std::string>& label_names, const data::Examples& examples,
             const data::Ragged<int32_t>* first_tokens = nullptr);

  int64_t size() const override { return examples_.size(); }
  int64_t rows(int64_t example) const override;
  std::map<std::string, Activations> enter(const std::vector<int64_t>& examples, uint64_t epoch) const override;
  void expect(const std::vector<int64_t>& examples, uint64_t epoch) const override;
  double weight(const std::vector<int64_t>& examples, uint64_t epoch) const override;
  Tensor loss_sum(const Outputs& outputs, const std::vector<int64_t>& examples, uint64_t epoch) const override;
  Predictions predictions() const override;
  void collect(const Outputs& outputs, const std::vector<int64_t>& examples, Predictions& into) const override;

  /// Targets alone, without predictions, for the choice of the metric and the majority class.
  Predictions targets() const;

 private:
  Tensor loss_of(const Outputs& outputs, const std::vector<int64_t>& examples) const;
  Tensor target_tensor(const std::vector<int64_t>& examples) const;
  /// For labels on words: rows among the batch's tokens, and their labels.
  std::pair<std::vector<int64_t>, std::vector<int64_t>> labelled_tokens(const std::vector<int64_t>& examples) const;

  models::Model& model_;
  const features::Feed& feed_;
  std::string task_;
  std::vector<std::string> label_names_;
  const data::Examples& examples_;
  const data::Ragged<int32_t>* first_tokens_;
};

/// The same examples, fewer of them: the first `count` of a seeded permutation.
std::vector<int64_t> sample(int64_t size, int64_t count, uint64_t seed);

}  // namespace graft::train
