#include "graft/nn/chunked_cross_entropy.h"

#include <algorithm>

namespace graft::nn {

using torch::Tensor;

ChunkLoss cross_entropy_of(const Tensor& labels) {
  return [labels](int64_t start, Tensor log_p, Tensor* of_logits) {
    const auto label = labels.narrow(0, start, log_p.size(0)).unsqueeze(1);
    const auto counts = label.ge(0), target = label.clamp_min(0);
    const auto sum = -log_p.gather(1, target).mul(counts).sum();
    // softmax - onehot, 0 in rows that do not count
    if (of_logits)
      *of_logits = log_p.exp_().scatter_add_(1, target, torch::full_like(target, -1, log_p.options())).mul_(counts);
    return sum;
  };
}

Tensor chunked_cross_entropy(const Tensor& hidden, const Tensor& weight, const Tensor& labels, int64_t chunk_rows,
                             const Tensor& bias) {
  return chunked_sum({hidden, weight, bias}, cross_entropy_of(labels), chunk_rows);
}

Tensor chunked_losses(const Tensor& hidden, const Tensor& weight, const Tensor& labels, int64_t chunk_rows) {
  const torch::NoGradGuard no_grad;
  const LogitsOf logits{hidden, weight, {}};
  const auto chunk = rows_of_chunk(logits, chunk_rows);
  std::vector<Tensor> losses;
  for (int64_t start = 0; start < hidden.size(0); start += chunk) {
    const auto n = std::min(chunk, hidden.size(0) - start);
    const auto label = labels.narrow(0, start, n).unsqueeze(1);
    const auto log_p = chunk_log_softmax(logits, start, n);
    losses.push_back(-(log_p.gather(1, label.clamp_min(0)) * label.ge(0)).squeeze(1));
  }
  return torch::cat(losses);
}

}  // namespace graft::nn
