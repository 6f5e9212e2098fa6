#include "graft/retain/buffer.h"

#include <algorithm>
#include <limits>
#include <map>
#include <numeric>

#include "graft/core/random.h"

namespace graft::retain {
namespace {

/// Round after round one of each label, in the order that each label's examples have: a label that has few gives all of
/// them.
std::vector<int64_t> in_rounds(const std::map<int64_t, std::vector<int64_t>>& by_label, int64_t count) {
  std::vector<int64_t> chosen;
  for (size_t round = 0; static_cast<int64_t>(chosen.size()) < count; ++round)
    for (const auto& [label, examples] : by_label)
      if (round < examples.size() && static_cast<int64_t>(chosen.size()) < count) chosen.push_back(examples[round]);
  std::sort(chosen.begin(), chosen.end());
  return chosen;
}

std::vector<int64_t> all_of(int64_t n) {
  std::vector<int64_t> order(n);
  std::iota(order.begin(), order.end(), 0);
  return order;
}

}  // namespace

std::vector<int64_t> reservoir(int64_t n, int64_t count, uint64_t seed) {
  if (count <= 0 || count >= n) return all_of(n);
  auto kept = all_of(count);
  Random random(seed);
  for (int64_t i = count; i < n; ++i)
    if (const auto place = static_cast<int64_t>(random.below(i + 1)); place < count) kept[place] = i;
  std::sort(kept.begin(), kept.end());
  return kept;
}

std::vector<int64_t> balanced(const std::vector<int64_t>& labels, int64_t count, uint64_t seed) {
  auto order = all_of(static_cast<int64_t>(labels.size()));
  if (count <= 0 || count >= static_cast<int64_t>(order.size())) return order;
  Random(seed).shuffle(order);
  std::map<int64_t, std::vector<int64_t>> by_label;
  for (const auto i : order) by_label[labels[i]].push_back(i);
  return in_rounds(by_label, count);
}

std::vector<int64_t> herded(const torch::Tensor& features, const std::vector<int64_t>& labels, int64_t count) {
  const auto all = all_of(static_cast<int64_t>(labels.size()));
  if (count <= 0 || count >= static_cast<int64_t>(all.size())) return all;
  std::map<int64_t, std::vector<int64_t>> by_label;
  for (const auto i : all) by_label[labels[i]].push_back(i);
  for (auto& [label, examples] : by_label) {
    const auto own = features.index_select(0, torch::tensor(examples, torch::kInt64)).to(torch::kCPU, torch::kFloat64);
    const auto phi = own / own.norm(2, 1, true).clamp_min(1e-12);
    const auto mean = phi.mean(0);
    auto sum = torch::zeros_like(mean), left = torch::zeros({phi.size(0)}, phi.options());
    std::vector<int64_t> order;
    const auto wanted = std::min<int64_t>(count, phi.size(0));
    for (int64_t k = 1; k <= wanted; ++k) {
      // All have length 1, so |k mean - sum - phi|^2 is least where the product with k mean - sum is largest.
      const auto next = (phi.mv(k * mean - sum) + left).argmax().item<int64_t>();
      left[next] = -std::numeric_limits<double>::infinity();
      sum += phi[next];
      order.push_back(examples[next]);
    }
    examples = std::move(order);
  }
  return in_rounds(by_label, count);
}

}  // namespace graft::retain
