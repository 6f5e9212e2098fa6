#include "graft/finetune/verdict.h"

#include "graft/core/error.h"

namespace graft::finetune {
namespace {

using train::Predictions;

int64_t examples_of(const Predictions& p) {
  return p.task == "tokens" ? static_cast<int64_t>(p.token_target.size()) : p.targets.size(0);
}

/// Signed so that larger is better.
double value(const std::string& metric, const Predictions& p, const std::vector<int64_t>& sample) {
  return (train::smaller_is_better(metric) ? -1 : 1) * train::metric_of(metric, p, sample);
}

}  // namespace

Json verdict(const std::string& metric, const Predictions& head, const Predictions& majority, const Predictions& random,
             uint64_t seed) {
  const auto n = examples_of(head);
  const auto against = [&](const Predictions& other) {
    return train::bootstrap(
        n, seed, [&](const auto& sample) { return value(metric, head, sample) - value(metric, other, sample); });
  };
  const double at_head = train::metric_of(metric, head), at_majority = train::metric_of(metric, majority),
               at_random = train::metric_of(metric, random);
  const auto over_majority = against(majority), over_random = against(random);
  const bool beats_majority = over_majority.lower > 0, beats_random = over_random.lower > 0;
  const std::string word = beats_majority && beats_random ? "useful" : beats_majority ? "weak" : "no";

  std::string sentence, advice;
  if (word == "useful") {
    sentence = fmt::format(
        "The features are useful: {} {:.3f} with them, {:.3f} with a random copy of the network, {:.3f} by always "
        "guessing the most frequent.",
        metric, at_head, at_random, at_majority);
    advice = "Go on with this source.";
  } else if (word == "weak") {
    sentence = fmt::format(
        "The features are weak: {} {:.3f} is above the guess of the most frequent ({:.3f}), but not surely above a "
        "random copy of the network ({:.3f}).",
        metric, at_head, at_majority, at_random);
    advice = "Try domain-adaptive pre-training ([adapt] corpus), or a source of a nearer domain.";
  } else {
    sentence = fmt::format(
        "The features are not useful yet: {} {:.3f} is not surely above the guess of the most frequent ({:.3f}).",
        metric, at_head, at_majority);
    advice = "Check the labels, choose a source of a nearer domain, or give more data.";
  }
  const auto interval = [](const train::Interval& i) { return Json{{"lower", i.lower}, {"upper", i.upper}}; };
  return {{"verdict", word},
          {"metric", metric},
          {"head", at_head},
          {"majority", at_majority},
          {"random_copy", at_random},
          {"over_majority", interval(over_majority)},
          {"over_random_copy", interval(over_random)},
          {"examples", n},
          {"sentence", sentence},
          {"advice", advice}};
}

Predictions majority_predictions(const Predictions& training, const Predictions& targets) {
  auto p = targets;
  if (p.task == "tokens") {
    std::vector<int64_t> counts(p.label_names.size(), 0);
    for (const auto& words : training.token_target)
      for (const auto label : words) ++counts[label];
    const int64_t commonest = std::max_element(counts.begin(), counts.end()) - counts.begin();
    p.token_predicted = p.token_target;
    for (auto& words : p.token_predicted) std::fill(words.begin(), words.end(), commonest);
  } else if (p.task == "regression") {
    p.scores = training.targets.mean().expand({p.targets.size(0), 1}).contiguous();
  } else if (p.task == "multilabel") {
    p.scores = (training.targets.mean(0, true) - 0.5).expand(p.targets.sizes()).contiguous();
  } else {
    const auto K = static_cast<int64_t>(p.label_names.size());
    const auto shares = torch::bincount(training.targets, {}, K).to(torch::kFloat32);
    p.scores = shares.unsqueeze(0).expand({p.targets.size(0), K}).contiguous();
  }
  return p;
}

}  // namespace graft::finetune
