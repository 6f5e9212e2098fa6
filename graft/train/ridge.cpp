#include "graft/train/ridge.h"

#include <torch/types.h>

#include <limits>

namespace graft::train {

Principal::Principal(const Tensor& x) : x_(x), wide_(x.size(0) <= x.size(1)) {
  const auto [values, vectors] = at::linalg_eigh(wide_ ? x.matmul(x.t()) : x.t().matmul(x));
  squares_ = values.clamp_min(0);
  vectors_ = vectors;
}

Tensor Principal::scaled() const { return wide_ ? vectors_ * squares_.sqrt() : x_.matmul(vectors_); }

Tensor Principal::inner(const Tensor& y) const {
  return wide_ ? squares_.sqrt().unsqueeze(1) * vectors_.t().matmul(y) : vectors_.t().matmul(x_.t().matmul(y));
}

Tensor Principal::projected(const Tensor& y) const {
  if (wide_) return vectors_.t().matmul(y).square();
  const auto tiny = 1e-13 * squares_.max().clamp_min(1e-300);
  const auto quotient = inner(y).square() / squares_.clamp_min(1e-300).unsqueeze(1);
  return at::where((squares_ > tiny).unsqueeze(1), quotient, at::zeros_like(quotient));
}

Tensor Principal::combined(const Tensor& w) const {
  return (wide_ ? w.matmul(scaled()) : w.matmul(x_).matmul(vectors_)).square();
}

Tensor Principal::ridge(const Tensor& y, double penalty) const {
  const auto divisor = (squares_ + penalty).unsqueeze(1);
  return wide_ ? x_.t().matmul(vectors_.matmul(vectors_.t().matmul(y) / divisor)) : vectors_.matmul(inner(y) / divisor);
}

Ridge ridge(const Tensor& x, const Tensor& y, const std::function<double(const Tensor& left_out)>& quality) {
  const auto mean = x.mean(0, true), offset = y.mean(0, true);
  const auto deviation = (x - mean).square().mean(0, true).sqrt();
  // What differs by the rounding of float32 alone says nothing, and must not be made as large as the rest.
  const auto scale = at::where(deviation > 1e-6 * (mean.abs() + 1e-300), deviation, at::ones_like(deviation));
  const auto z = (x - mean) / scale, centred = y - offset;
  const Principal principal(z);
  const auto scaled = principal.scaled(), inner = principal.inner(centred), squared = scaled.square();
  const auto n = static_cast<double>(x.size(0));
  Ridge best;
  double best_quality = -std::numeric_limits<double>::infinity(), penalty = 0;
  for (const double strength : {1e-3, 1e-2, 1e-1, 1e0, 1e1, 1e2}) {
    const auto filter = 1 / (principal.squares() + strength * n);
    const auto fitted = scaled.matmul(filter.unsqueeze(1) * inner);
    // Leave-one-out of a linear smoother, exactly: the residual over 1 - its own leverage (and that of the mean).
    const auto leverage = squared.matmul(filter).unsqueeze(1) + 1 / n;
    const auto left_out = y - (centred - fitted) / (1 - leverage).clamp_min(1e-9);
    const double value = quality(left_out);
    if (value <= best_quality) continue;
    best_quality = value;
    best.left_out = left_out;
    penalty = strength * n;
  }
  best.weight = (principal.ridge(centred, penalty) / scale.t()).t().contiguous();
  best.bias = (offset - mean.matmul(best.weight.t())).squeeze(0);
  return best;
}

}  // namespace graft::train
