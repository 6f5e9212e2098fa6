// What a model is judged by, from its outputs over a split. Each is a plain function of predictions and targets.
// Shapes:  n examples (tokens for entity F1), K labels.
#pragma once

#include <torch/types.h>

#include <string>
#include <vector>

#include "graft/core/json.h"

namespace graft::train {

using torch::Tensor;

/// predicted, target (n) int64.
double accuracy(const Tensor& predicted, const Tensor& target);
/// Mean over labels of the F1 of each; a label that neither occurs nor is predicted is left out.
double macro_f1(const Tensor& predicted, const Tensor& target, int64_t num_labels);
/// Matthews' correlation for K labels (Gorodkin 2004); 0 where it is undefined.
double mcc(const Tensor& predicted, const Tensor& target, int64_t num_labels);
/// Area under the ROC curve by ranks (ties count half): score (n) float, target (n) 0/1. NaN when one class is absent.
double auroc(const Tensor& score, const Tensor& target);
/// Mean over labels of one-against-rest AUROC; labels that are absent are left out. scores (n, K), target (n).
double macro_auroc(const Tensor& scores, const Tensor& target);
double pearson(const Tensor& a, const Tensor& b);
/// Pearson of the ranks, ties ranked by their mean.
double spearman(const Tensor& a, const Tensor& b);
/// Micro F1 over multi-hot (n, K) 0/1.
double micro_f1(const Tensor& predicted, const Tensor& target);
/// F1 over whole entities as seqeval counts them (IOB2: B-X, I-X, O; an I- after another kind begins one).
double entity_f1(const std::vector<std::vector<std::string>>& predicted,
                 const std::vector<std::vector<std::string>>& target);

/// Predictions of one split: what metrics and bootstrap need, and no logits of tokens.
struct Predictions {
  std::string task;  // as data::Dataset::task, or masked_lm
  Tensor scores;     // (n, K) float: logits of classes, values of a regression
  Tensor targets;    // (n) int64 classes, (n, K) multi-hot, (n) float values
  std::vector<std::vector<int64_t>> token_predicted, token_target;  // tokens: labels of the words of each example
  std::vector<std::string> label_names;
  double loss = 0;                      // mean
  std::vector<double> losses, weights;  // causal_lm: summed loss and counted tokens of each example; may be empty
};

/// Examples that a metric can be resampled over.
int64_t example_count(const Predictions& predictions);
/// All metrics that the task has, by name.
Json all_metrics(const Predictions& predictions);
/// One metric over chosen examples (with repetition), for the bootstrap.
double metric_of(const std::string& name, const Predictions& predictions, const std::vector<int64_t>& examples);
double metric_of(const std::string& name, const Predictions& predictions);
/// "accuracy", or "macro_f1" when the largest class has over 60 %; "micro_f1", "pearson", "entity_f1" by task.
std::string default_metric(const Predictions& training_targets);
/// Names that the task has, for messages.
std::vector<std::string> metric_names(const std::string& task);
/// True when smaller is better (loss, perplexity).
bool smaller_is_better(const std::string& metric);

struct Interval {
  double lower, upper, standard_error;
};
/// Percentile bootstrap (Efron 1979) of `statistic` over resamples of the examples; seeded.
template <class Statistic>
Interval bootstrap(int64_t examples, uint64_t seed, Statistic&& statistic, int64_t resamples = 1000);

}  // namespace graft::train

#include "graft/train/bootstrap.h"
