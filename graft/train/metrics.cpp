#include "graft/train/metrics.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "graft/core/error.h"

namespace graft::train {
namespace {

Tensor confusion(const Tensor& predicted, const Tensor& target, int64_t K) {
  return torch::bincount(target * K + predicted, {}, K * K).view({K, K}).to(torch::kFloat64);  // rows: target
}

double finite_or_zero(double x) { return std::isfinite(x) ? x : 0; }

/// Ranks from 1, ties by their mean.
std::vector<double> ranks(const Tensor& values) {
  const auto v = values.to(torch::kFloat64).contiguous();
  const auto* x = v.const_data_ptr<double>();
  std::vector<int64_t> order(v.numel());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return x[a] < x[b]; });
  std::vector<double> rank(order.size());
  for (size_t i = 0; i < order.size();) {
    size_t j = i;
    while (j + 1 < order.size() && x[order[j + 1]] == x[order[i]]) ++j;
    for (size_t k = i; k <= j; ++k) rank[order[k]] = 0.5 * (i + j) + 1;
    i = j + 1;
  }
  return rank;
}

struct Entity {
  std::string type;
  size_t begin, end;
  auto operator<=>(const Entity&) const = default;
};

std::set<Entity> entities(const std::vector<std::string>& tags) {
  std::set<Entity> found;
  std::string type;
  size_t begin = 0;
  for (size_t i = 0; i <= tags.size(); ++i) {
    const auto tag = i < tags.size() ? tags[i] : "O";
    const bool inside = tag.size() > 2 && tag[1] == '-';
    const auto kind = inside ? tag.substr(2) : std::string();
    const bool starts = inside && (tag[0] == 'B' || kind != type);
    if (!type.empty() && (!inside || starts)) found.insert({type, begin, i}), type.clear();
    if (starts) type = kind, begin = i;
  }
  return found;
}

double f1(double hits, double predicted, double target) {
  return predicted + target == 0 ? 0 : 2 * hits / (predicted + target);
}

std::vector<std::string> tags(const std::vector<int64_t>& labels, const std::vector<std::string>& names) {
  std::vector<std::string> words;
  for (const auto label : labels) words.push_back(names[label]);
  return words;
}

bool names_entities(const std::vector<std::string>& names) {
  return std::any_of(names.begin(), names.end(),
                     [](const auto& n) { return n.starts_with("B-") || n.starts_with("I-"); });
}

double token_metric(const std::string& name, const Predictions& p, const std::vector<int64_t>& examples) {
  if (name == "entity_f1") {
    std::vector<std::vector<std::string>> predicted, target;
    for (const auto i : examples) {
      predicted.push_back(tags(p.token_predicted[i], p.label_names));
      target.push_back(tags(p.token_target[i], p.label_names));
    }
    return entity_f1(predicted, target);
  }
  std::vector<int64_t> predicted, target;
  for (const auto i : examples) {
    predicted.insert(predicted.end(), p.token_predicted[i].begin(), p.token_predicted[i].end());
    target.insert(target.end(), p.token_target[i].begin(), p.token_target[i].end());
  }
  const auto a = torch::tensor(predicted, torch::kInt64), b = torch::tensor(target, torch::kInt64);
  return name == "macro_f1" ? macro_f1(a, b, p.label_names.size()) : accuracy(a, b);
}

}  // namespace

double accuracy(const Tensor& predicted, const Tensor& target) {
  return predicted.numel() == 0 ? 0 : predicted.eq(target).to(torch::kFloat64).mean().item<double>();
}

double macro_f1(const Tensor& predicted, const Tensor& target, int64_t K) {
  const auto c = confusion(predicted, target, K);
  const auto hits = c.diag(), all = c.sum(0) + c.sum(1);
  const auto present = all > 0;
  return finite_or_zero((2 * hits / all).masked_select(present).mean().item<double>());
}

double mcc(const Tensor& predicted, const Tensor& target, int64_t K) {
  const auto c = confusion(predicted, target, K);
  const double n = c.sum().item<double>(), hits = c.diag().sum().item<double>();
  const auto p = c.sum(0), t = c.sum(1);
  const double cross = (p * t).sum().item<double>(), pp = (p * p).sum().item<double>(),
               tt = (t * t).sum().item<double>();
  return finite_or_zero((hits * n - cross) / std::sqrt((n * n - pp) * (n * n - tt)));
}

double auroc(const Tensor& score, const Tensor& target) {
  const auto rank = ranks(score);
  const auto t = target.to(torch::kInt64).contiguous();
  double positives = 0, sum = 0;
  for (int64_t i = 0; i < t.numel(); ++i)
    if (t.const_data_ptr<int64_t>()[i] == 1) positives += 1, sum += rank[i];
  const double negatives = t.numel() - positives;
  if (positives == 0 || negatives == 0) return NAN;
  return (sum - positives * (positives + 1) / 2) / (positives * negatives);
}

double macro_auroc(const Tensor& scores, const Tensor& target) {
  double total = 0;
  int64_t labels = 0;
  for (int64_t k = 0; k < scores.size(1); ++k) {
    const auto one = auroc(scores.select(1, k), target.dim() == 2 ? target.select(1, k) : target.eq(k));
    if (std::isfinite(one)) total += one, ++labels;
  }
  return labels ? total / labels : NAN;
}

double pearson(const Tensor& a, const Tensor& b) {
  const auto x = a.to(torch::kFloat64) - a.to(torch::kFloat64).mean(),
             y = b.to(torch::kFloat64) - b.to(torch::kFloat64).mean();
  return finite_or_zero(((x * y).sum() / (x.norm() * y.norm())).item<double>());
}

double spearman(const Tensor& a, const Tensor& b) {
  return pearson(torch::tensor(ranks(a), torch::kFloat64), torch::tensor(ranks(b), torch::kFloat64));
}

double micro_f1(const Tensor& predicted, const Tensor& target) {
  const auto p = predicted.to(torch::kFloat64), t = target.to(torch::kFloat64);
  return f1((p * t).sum().item<double>(), p.sum().item<double>(), t.sum().item<double>());
}

double entity_f1(const std::vector<std::vector<std::string>>& predicted,
                 const std::vector<std::vector<std::string>>& target) {
  double hits = 0, p = 0, t = 0;
  for (size_t i = 0; i < predicted.size(); ++i) {
    const auto a = entities(predicted[i]), b = entities(target[i]);
    for (const auto& e : a) hits += b.contains(e);
    p += a.size();
    t += b.size();
  }
  return f1(hits, p, t);
}

std::vector<std::string> metric_names(const std::string& task) {
  if (task == "multilabel") return {"micro_f1", "macro_auroc", "loss"};
  if (task == "regression") return {"pearson", "spearman", "loss"};
  if (task == "tokens") return {"entity_f1", "accuracy", "macro_f1", "loss"};
  if (task == "masked_lm" || task == "causal_lm") return {"perplexity", "loss"};
  return {"accuracy", "macro_f1", "mcc", "auroc", "loss"};
}

bool smaller_is_better(const std::string& metric) { return metric == "loss" || metric == "perplexity"; }

double metric_of(const std::string& name, const Predictions& p, const std::vector<int64_t>& examples) {
  if (smaller_is_better(name) && !p.losses.empty()) {
    double loss = 0, weight = 0;
    for (const auto i : examples) loss += p.losses[i], weight += p.weights[i];
    const double mean = weight > 0 ? loss / weight : 0;
    return name == "loss" ? mean : std::exp(mean);
  }
  if (name == "loss") return p.loss;
  if (name == "perplexity") return std::exp(p.loss);
  if (p.task == "tokens") return token_metric(name, p, examples);
  const auto index = torch::tensor(examples, torch::kInt64);
  const auto scores = p.scores.index_select(0, index), targets = p.targets.index_select(0, index);
  if (p.task == "regression")
    return name == "spearman" ? spearman(scores.select(1, 0), targets) : pearson(scores.select(1, 0), targets);
  if (p.task == "multilabel")
    return name == "macro_auroc" ? macro_auroc(scores, targets) : micro_f1(scores > 0, targets);
  const auto predicted = scores.argmax(1);
  const auto K = scores.size(1);
  if (name == "macro_f1") return macro_f1(predicted, targets, K);
  if (name == "mcc") return mcc(predicted, targets, K);
  if (name == "auroc")
    return K == 2 ? auroc(scores.select(1, 1) - scores.select(1, 0), targets) : macro_auroc(scores.softmax(1), targets);
  return accuracy(predicted, targets);
}

double metric_of(const std::string& name, const Predictions& p) {
  std::vector<int64_t> all(example_count(p));
  std::iota(all.begin(), all.end(), 0);
  return metric_of(name, p, all);
}

int64_t example_count(const Predictions& p) {
  if (!p.losses.empty()) return static_cast<int64_t>(p.losses.size());
  if (p.task == "tokens") return static_cast<int64_t>(p.token_target.size());
  return p.targets.defined() ? p.targets.size(0) : 0;
}

Json all_metrics(const Predictions& predictions) {
  Json metrics = Json::object();
  for (const auto& name : metric_names(predictions.task)) {
    if (name == "entity_f1" && !names_entities(predictions.label_names)) continue;
    const auto value = metric_of(name, predictions);
    metrics[name] = std::isfinite(value) ? Json(value) : Json(nullptr);
  }
  return metrics;
}

std::string default_metric(const Predictions& p) {
  if (p.task == "multilabel") return "micro_f1";
  if (p.task == "regression") return "pearson";
  if (p.task == "masked_lm" || p.task == "causal_lm") return "perplexity";
  if (p.task == "tokens") return names_entities(p.label_names) ? "entity_f1" : "accuracy";
  const auto largest = torch::bincount(p.targets).max().item<int64_t>();
  return largest > 0.6 * p.targets.numel() ? "macro_f1" : "accuracy";
}

}  // namespace graft::train
