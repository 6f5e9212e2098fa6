#include "graft/retain/ewc.h"

#include <ATen/Parallel.h>

#include <algorithm>

#include "graft/core/clones.h"
#include "graft/core/error.h"

namespace graft::retain {
namespace {

constexpr int64_t kSpan = 1 << 14;  // values of one piece of work: the sum's order does not depend on the threads

/// Sums side by side, so that the loop can be vectorised in a fixed order. The optimisation is asked for because -O2 leaves
/// such a loop scalar.
template <bool weigh>
inline __attribute__((always_inline)) double pulled(float* __restrict__ gradient, const float* __restrict__ theta,
                                                    const float* __restrict__ at, const float* __restrict__ fisher,
                                                    int64_t size, float strength) {
  constexpr int64_t kLanes = 16;
  float sums[kLanes] = {};
  const auto one = [&](int64_t i, int64_t lane) {
    const float distance = theta[i] - at[i];
    const float weighted = weigh ? fisher[i] * distance : distance;
    gradient[i] += strength * weighted;
    sums[lane] += weighted * distance;
  };
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes)
    for (int64_t lane = 0; lane < kLanes; ++lane) one(i + lane, lane);
  for (int64_t lane = 0; i < size; ++i, ++lane) one(i, lane);
  double sum = 0;
  for (const auto part : sums) sum += part;
  return sum;
}

}  // namespace

GRAFT_CLONES double pull(float* gradient, const float* theta, const float* at, const float* fisher, int64_t size,
                         float strength) {
  return fisher ? pulled<true>(gradient, theta, at, fisher, size, strength)
                : pulled<false>(gradient, theta, at, nullptr, size, strength);
}

Ewc::Ewc(const models::Model& model, Anchors anchors, double strength, std::string label)
    : strength(strength), label_(std::move(label)) {
  for (const auto& item : model.parameters_by_key()) {
    const auto found = anchors.of.find(item.key());
    if (found == anchors.of.end() || found->second.at.sizes() != item.value().sizes()) continue;
    const auto& parameter = item.value();
    GRAFT_ASSERT(parameter.is_contiguous() && parameter.scalar_type() == torch::kFloat32);
    const auto beside = [&](const Tensor& x) { return x.defined() ? x.to(parameter.device()).contiguous() : Tensor(); };
    held_.push_back({item.key(), parameter, beside(found->second.at), beside(found->second.fisher)});
    const auto& held = held_.back();
    if (!parameter.device().is_cpu()) continue;  // there add_gradients() goes by whole tensors
    // A row of a table is left out as a whole when nothing in it mattered.
    const auto rows = parameter.dim() > 1 ? parameter.size(0) : 1,
               width = parameter.numel() / std::max<int64_t>(1, rows);
    Tensor matters;
    if (held.fisher.defined()) matters = held.fisher.reshape({rows, width}).ne(0).any(1).contiguous();
    for (int64_t row = 0; row < rows;) {
      if (matters.defined() && !matters.const_data_ptr<bool>()[row]) {
        ++row;
        continue;
      }
      const auto first = row;
      while (row < rows && (row - first) * width < kSpan && (!matters.defined() || matters.const_data_ptr<bool>()[row]))
        ++row;
      for (int64_t start = first * width; start < row * width; start += kSpan)
        spans_.push_back({held_.size() - 1, start, std::min(kSpan, row * width - start)});
    }
  }
  GRAFT_CHECK(model, !held_.empty(),
              "{}: none of the model's parameters has an anchor. The Fisher belongs to another architecture; make it "
              "again with `graft retain fisher` on this run's source.",
              label_);
  partial_.resize(spans_.size());
}

/// As the loop of the CPU, in ATen's operations on whole tensors; one value comes back.
double Ewc::add_gradients_on_device() {
  Tensor sum;
  for (auto& held : held_) {
    if (!held.parameter.requires_grad()) continue;
    auto& gradient = held.parameter.mutable_grad();
    if (!gradient.defined()) gradient = torch::zeros_like(held.parameter);
    const auto distance = held.parameter - held.at;
    const auto weighted = held.fisher.defined() ? held.fisher * distance : distance;
    gradient.add_(weighted, strength);
    const auto part = (weighted * distance).sum();
    sum = sum.defined() ? sum + part : part;
  }
  return sum.defined() ? 0.5 * strength * sum.item<double>() : 0;
}

double Ewc::add_gradients(const train::WholeStep&) {
  const torch::NoGradGuard no_grad;
  if (strength != 0 && !held_.front().parameter.device().is_cpu()) return add_gradients_on_device();
  struct Pointers {
    float* gradient = nullptr;
    const float *theta = nullptr, *at = nullptr, *fisher = nullptr;
  };
  std::vector<Pointers> pointers(held_.size());
  bool any = false;
  for (size_t i = 0; i < held_.size(); ++i) {
    auto& held = held_[i];
    if (!held.parameter.requires_grad()) continue;
    auto& gradient = held.parameter.mutable_grad();
    if (!gradient.defined()) gradient = torch::zeros_like(held.parameter);
    if (!gradient.is_contiguous()) gradient = gradient.contiguous();
    pointers[i] = {gradient.data_ptr<float>(), held.parameter.const_data_ptr<float>(), held.at.const_data_ptr<float>(),
                   held.fisher.defined() ? held.fisher.const_data_ptr<float>() : nullptr};
    any = true;
  }
  if (!any || strength == 0) return 0;
  at::parallel_for(0, static_cast<int64_t>(spans_.size()), 8, [&](int64_t begin, int64_t end) {
    for (auto s = begin; s < end; ++s) {
      const auto& span = spans_[s];
      const auto& p = pointers[span.anchor];
      partial_[s] = p.gradient
                        ? pull(p.gradient + span.start, p.theta + span.start, p.at + span.start,
                               p.fisher ? p.fisher + span.start : nullptr, span.size, static_cast<float>(strength))
                        : 0;
    }
  });
  double sum = 0;
  for (const auto part : partial_) sum += part;
  return 0.5 * strength * sum;
}

}  // namespace graft::retain
