#include "graft/select/scores.h"

#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numbers>

#include "graft/core/error.h"
#include "graft/train/ridge.h"

namespace graft::select {
namespace {

using at::indexing::Slice;

/// Features as float64, checked; labels as int64 with the number of classes.
struct Checked {
  Tensor features, labels;
  int64_t n = 0, d = 0, classes = 0;
};

Tensor checked_matrix(const Tensor& matrix, const char* what) {
  GRAFT_CHECK(data, matrix.dim() == 2 && matrix.size(0) > 0 && matrix.size(1) > 0,
              "{}: expected a matrix of examples by dimensions that is not empty.", what);
  const auto result = matrix.detach().to(at::kCPU, at::kDouble).contiguous();
  GRAFT_CHECK(data, at::isfinite(result).all().item<bool>(),
              "{}: hold values that are not finite; the source fails on these data.", what);
  return result;
}

Checked check(const Tensor& features, const Tensor& labels, const char* what = "the features") {
  Checked c;
  c.features = checked_matrix(features, what);
  c.n = c.features.size(0);
  c.d = c.features.size(1);
  GRAFT_CHECK(data, labels.dim() == 1 && labels.size(0) == c.n && at::isIntegralType(labels.scalar_type(), false),
              "the labels: expected {} whole numbers, one for each example.", c.n);
  c.labels = labels.detach().to(at::kCPU, at::kLong).contiguous();
  GRAFT_CHECK(data, c.labels.min().item<int64_t>() >= 0, "the labels: classes are counted from 0.");
  c.classes = c.labels.max().item<int64_t>() + 1;
  GRAFT_CHECK(data, c.classes >= 2, "the labels: there is one class only; at least two are needed to score a source.");
  const auto least = at::bincount(c.labels, {}, c.classes).min().item<int64_t>();
  GRAFT_CHECK(data, least > 0,
              "the labels: a class has no example in the sample; at least one is needed, five are better.");
  return c;
}

Tensor one_hot(const Checked& c) { return at::one_hot(c.labels, c.classes).to(at::kDouble); }

/// The largest log evidence per example of y = F w + noise, w ~ N(0, 1/alpha), noise ~ N(0, 1/beta).
/// `sigma`: squared singular values of F; `projected`: squares of U' y; `outside`: what of |y|^2 lies outside of U.
double evidence(const Tensor& sigma, const Tensor& projected, double outside, double n) {
  constexpr int kIterations = 1000;
  constexpr double kTiny = 1e-5;  // keeps the precisions finite where the fit is perfect or there is none
  double alpha = 1, beta = 1, best = 0;
  for (int i = 0; i < kIterations; ++i) {
    const double ratio = alpha / beta;
    const double effective = (sigma / (sigma + ratio)).sum().item<double>();
    const double weight = (sigma * projected / (sigma + ratio).square()).sum().item<double>();
    const double residual = (projected / (1 + sigma / ratio).square()).sum().item<double>() + outside;
    alpha = effective / (weight + kTiny);
    beta = std::max(n - effective, 0.0) / (residual + kTiny);
    // Features that say nothing drive alpha to 0 / 0, a sample that d dimensions fit perfectly drives beta there.
    alpha = std::clamp(alpha, 1e-12, 1e12);
    beta = std::clamp(beta, 1e-12, 1e12);
    // The dimensions without a singular value add log(alpha) to both determinants, which cancels.
    best = 0.5 * static_cast<double>(sigma.size(0)) * std::log(alpha) + 0.5 * n * std::log(beta) -
           0.5 * (alpha + beta * sigma).log().sum().item<double>() - 0.5 * beta * residual - 0.5 * alpha * weight -
           0.5 * n * std::log(2 * std::numbers::pi);
    if (std::abs(alpha / beta - ratio) <= 1e-3 * ratio) break;  // as the authors' program ends
  }
  return best / n;
}

double mean_evidence(const Tensor& features, const Tensor& targets) {
  const train::Principal principal(features);
  const auto projected = principal.projected(targets);
  const auto n = static_cast<double>(features.size(0));
  double sum = 0;
  for (int64_t k = 0; k < targets.size(1); ++k) {
    const auto inside = projected.index({Slice(), k});
    const auto outside = std::max(0.0, (targets.index({Slice(), k}).square().sum() - inside.sum()).item<double>());
    sum += evidence(principal.squares(), inside, outside, n);
  }
  return sum / static_cast<double>(targets.size(1));
}

/// The intensity of Ledoit and Wolf's shrinkage towards a multiple of the identity, and that multiple (2004, lemma 3.4).
/// `x`: centred. In O(n^2 d) or O(n d^2), whichever is less.
std::pair<double, double> ledoit_wolf(const Tensor& x) {
  const auto n = static_cast<double>(x.size(0)), d = static_cast<double>(x.size(1));
  const auto norms = x.square().sum(1);
  const double mu = norms.sum().item<double>() / (n * d);
  const auto gram = x.size(0) < x.size(1) ? x.matmul(x.t()) : x.t().matmul(x);
  const double squared = gram.square().sum().item<double>() / (n * n);  // |S|^2, by either product
  const double distance = squared - d * mu * mu;
  if (distance <= 0) return {1, mu};
  const double noise = (norms.square().sum().item<double>() / n - squared) / n;
  return {std::clamp(noise / distance, 0.0, 1.0), mu};
}

Tensor ranks(const Tensor& values) {
  // Equal values share the mean of their places, as Spearman has it.
  const auto [unique, inverse, counts] = at::_unique2(values, /*sorted=*/true, /*return_inverse=*/true, true);
  const auto ends = counts.to(at::kDouble).cumsum(0);
  const auto mean = ends - (counts.to(at::kDouble) - 1) / 2;
  return mean.index({inverse});
}

double pearson(const Tensor& a, const Tensor& b) {
  const auto x = a - a.mean(), y = b - b.mean();
  const double scale = std::sqrt((x.square().sum() * y.square().sum()).item<double>());
  return scale > 0 ? (x * y).sum().item<double>() / scale : 0;
}

/// 1 - Pearson of each pair of rows; a constant row has correlation 0 with the others.
Tensor correlation_distance(const Tensor& rows) {
  auto x = rows - rows.mean(1, true);
  const auto norms = x.norm(2, {1}, true);
  // What rounding leaves of a constant row is no direction.
  const auto real = norms > 1e-12 * rows.norm(2, {1}, true).clamp_min(1e-300);
  x = at::where(real, x / norms.clamp_min(1e-300), at::zeros_like(x));
  return 1 - x.matmul(x.t());
}

double coding_rate(const Tensor& x, double epsilon) {
  const auto n = x.size(0), d = x.size(1);
  const auto gram = n < d ? x.matmul(x.t()) : x.t().matmul(x);  // the same determinant
  const auto matrix = at::eye(gram.size(0), gram.options()) + gram / (static_cast<double>(n) * epsilon);
  return 0.5 * std::get<1>(at::linalg_slogdet(matrix)).item<double>();
}

void check_probabilities(const Tensor& p) {
  GRAFT_CHECK(data, (p >= 0).all().item<bool>() && ((p.sum(1) - 1).abs() < 1e-3).all().item<bool>(),
              "the source's probabilities: expected rows of numbers from 0 that sum to 1.");
}

}  // namespace

double log_me(const Tensor& features, const Tensor& labels) {
  const auto c = check(features, labels);
  return mean_evidence(c.features, one_hot(c));
}

double log_me_regression(const Tensor& features, const Tensor& targets) {
  const auto f = checked_matrix(features, "the features");
  const auto y = checked_matrix(targets.dim() == 1 ? targets.unsqueeze(1) : targets, "the targets");
  GRAFT_CHECK(data, y.size(0) == f.size(0), "the targets: expected {} rows, one for each example, found {}.", f.size(0),
              y.size(0));
  return mean_evidence(f, y);
}

double h_score(const Tensor& features, const Tensor& labels) {
  auto c = check(features, labels);
  c.features = c.features - c.features.mean(0, true);
  const auto [shrinkage, mu] = ledoit_wolf(c.features);
  if (mu <= 0) return 0;
  const auto n = static_cast<double>(c.n);
  // cov(E[f|y]) = B'B, where B = W F: the root of each class's share times the mean of its features.
  const auto indicator = one_hot(c);
  const auto combination = indicator.t() / (indicator.sum(0) * n).sqrt().unsqueeze(1);
  // With S = V diag(l) V' the inverse of (1-a) S + a mu I is known in S's basis; outside of it only a mu is left.
  const train::Principal principal(c.features);
  const auto eigenvalues = principal.squares() / n;
  const auto shrunk = (1 - shrinkage) * eigenvalues + shrinkage * mu;
  const double smallest = 1e-15 * static_cast<double>(std::max(c.n, c.d)) * eigenvalues.max().item<double>();
  const auto inverse = at::where(shrunk > smallest, 1 / shrunk, at::zeros_like(shrunk));
  // Class means are combinations of the centred features, so nothing of them lies outside.
  const auto inside = principal.combined(combination).sum(0);
  return (1 - shrinkage) * (inside * inverse).sum().item<double>();
}

double leep(const Tensor& probabilities, const Tensor& labels) {
  const auto c = check(probabilities, labels, "the source's probabilities");
  check_probabilities(c.features);
  const auto joint = one_hot(c).t().matmul(c.features) / static_cast<double>(c.n);  // [C, Z]
  const auto conditional = joint / joint.sum(0, true).clamp_min(1e-300);
  const auto predicted = c.features.matmul(conditional.t()).gather(1, c.labels.unsqueeze(1));
  return predicted.clamp_min(1e-300).log().mean().item<double>();
}

double nce(const Tensor& probabilities, const Tensor& labels) {
  const auto c = check(probabilities, labels, "the source's probabilities");
  check_probabilities(c.features);
  const auto source = at::one_hot(c.features.argmax(1), c.d).to(at::kDouble);
  const auto joint = one_hot(c).t().matmul(source) / static_cast<double>(c.n);
  const auto marginal = joint.sum(0, true).expand_as(joint);
  const auto terms = joint * (joint.clamp_min(1e-300) / marginal.clamp_min(1e-300)).log();
  return at::where(joint > 0, terms, at::zeros_like(terms)).sum().item<double>();
}

double trans_rate(const Tensor& features, const Tensor& labels, double epsilon) {
  const auto c = check(features, labels);
  GRAFT_CHECK(usage, epsilon > 0, "TransRate: epsilon is {}, expected more than 0.", epsilon);
  const auto x = c.features - c.features.mean(0, true);
  double within = 0;
  for (int64_t k = 0; k < c.classes; ++k) within += coding_rate(x.index({c.labels == k}), epsilon);
  return coding_rate(x, epsilon) - within / static_cast<double>(c.classes);
}

double parc(const Tensor& features, const Tensor& labels) {
  const auto c = check(features, labels);
  const auto pairs = at::tril_indices(c.n, c.n, -1, at::kLong);
  const auto lower = [&](const Tensor& distances) { return distances.index({pairs[0], pairs[1]}); };
  // Rounded, so that distances that are equal in exact arithmetic stay ties.
  const auto of_features = lower(correlation_distance(c.features)).mul(1e12).round();
  const auto of_labels = lower(correlation_distance(one_hot(c))).mul(1e12).round();
  return 100 * pearson(ranks(of_features), ranks(of_labels));
}

double nearest_neighbours(const Tensor& features, const Tensor& labels, int64_t k) {
  const auto c = check(features, labels);
  GRAFT_CHECK(data, k >= 1 && c.n > k, "nearest neighbours: {} examples are too few for k = {}.", c.n, k);
  const auto x = (c.features / c.features.norm(2, {1}, true).clamp_min(1e-300)).to(at::kFloat);
  const auto targets = one_hot(c).to(at::kFloat);
  constexpr int64_t kBlock = 1024;
  int64_t right = 0;
  for (int64_t begin = 0; begin < c.n; begin += kBlock) {
    const auto end = std::min(begin + kBlock, c.n);
    auto similarity = x.slice(0, begin, end).matmul(x.t());
    similarity.diagonal(begin).fill_(-2);  // not its own neighbour
    const auto [values, places] = similarity.topk(k, 1);
    // A vote counts 1, and a little more the nearer it is, which only decides ties.
    const auto votes = targets.index({places}) * (1 + (values + 1).unsqueeze(2) / (8.0 * static_cast<double>(k)));
    right += (votes.sum(1).argmax(1) == c.labels.slice(0, begin, end)).sum().item<int64_t>();
  }
  return static_cast<double>(right) / static_cast<double>(c.n);
}

namespace {

/// What each held-out example gets from ridge regression on the other parts, [n, k]. `fold`: the part of each example.
Tensor cross_predicted(const Tensor& features, const Tensor& targets, const Tensor& fold, int64_t folds,
                       const std::function<double(const Tensor& predicted, const Tensor& inside)>& quality) {
  auto predicted = at::zeros_like(targets);
  for (int64_t k = 0; k < folds; ++k) {
    const auto inside = (fold != k).nonzero().squeeze(1), outside = (fold == k).nonzero().squeeze(1);
    const auto fit = train::ridge(features.index_select(0, inside), targets.index_select(0, inside),
                                  [&](const Tensor& given) { return quality(given, inside); });
    predicted.index_copy_(0, outside, features.index_select(0, outside).matmul(fit.weight.t()) + fit.bias);
  }
  return predicted;
}

}  // namespace

Tensor probe_classes(const Tensor& features, const Tensor& labels, int64_t folds) {
  const auto c = check(features, labels);
  const auto least = at::bincount(c.labels, {}, c.classes).min().item<int64_t>();
  GRAFT_CHECK(data, folds >= 2 && least >= folds,
              "the linear probe: the smallest class has {} examples, {} are needed for {} parts.", least, folds, folds);
  // Each class is dealt out in turn.
  auto fold = at::empty({c.n}, at::kLong);
  std::vector<int64_t> dealt(static_cast<size_t>(c.classes), 0);
  const auto label = c.labels.accessor<int64_t, 1>();
  auto part = fold.accessor<int64_t, 1>();
  for (int64_t i = 0; i < c.n; ++i) part[i] = dealt[static_cast<size_t>(label[i])]++ % folds;
  const auto predicted =
      cross_predicted(c.features, one_hot(c), fold, folds, [&](const Tensor& given, const Tensor& inside) {
        return (given.argmax(1) == c.labels.index_select(0, inside)).to(at::kDouble).mean().item<double>();
      });
  return (predicted.argmax(1) == c.labels).to(at::kDouble);
}

Tensor probe_values(const Tensor& features, const Tensor& targets, int64_t folds) {
  const auto x = checked_matrix(features, "the features");
  const auto y = checked_matrix(targets.dim() == 1 ? targets.unsqueeze(1) : targets, "the targets");
  GRAFT_CHECK(data, y.size(0) == x.size(0), "the targets: expected {} rows, one for each example, found {}.", x.size(0),
              y.size(0));
  GRAFT_CHECK(data, folds >= 2 && x.size(0) >= 2 * folds,
              "the linear probe: {} examples are too few, {} are needed for {} parts.", x.size(0), 2 * folds, folds);
  const auto variance = y.var(0, false, true);
  const auto varied = variance > 0;
  const auto explained = [&](const Tensor& given, const Tensor& wanted) {
    const auto share = 1 - (given - wanted).square() / variance.clamp_min(1e-300);
    return at::where(varied, share, at::zeros_like(share)).mean(1);
  };
  const auto predicted = cross_predicted(x, y, at::arange(x.size(0), at::kLong) % folds, folds,
                                         [&](const Tensor& given, const Tensor& inside) {
                                           return explained(given, y.index_select(0, inside)).mean().item<double>();
                                         });
  return explained(predicted, y);
}

double linear_probe(const Tensor& features, const Tensor& labels, int64_t folds) {
  return probe_classes(features, labels, folds).mean().item<double>();
}

}  // namespace graft::select
