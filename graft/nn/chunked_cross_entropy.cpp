#include "graft/nn/chunked_cross_entropy.h"

namespace graft::nn {

using torch::Tensor;

ChunkLoss cross_entropy_of(const Tensor& labels) {
  return [labels](const Block& block) {
    const auto label = labels.narrow(0, block.start, block.log_p.size(0)).unsqueeze(1);
    const auto target = label.clamp_min(0), counts = label.ge(0).to(block.log_p.scalar_type());
    if (block.of_logits.defined()) {  // softmax - onehot, 0 in rows that do not count
      block.of_logits.addcmul_(block.p, counts, block.weight);
      block.of_logits.scatter_add_(1, target, counts * -block.weight);
    }
    return -block.log_p.gather(1, target).mul(counts).sum();
  };
}

Tensor chunked_cross_entropy(const Tensor& hidden, const Tensor& weight, const Tensor& labels, int64_t chunk_rows,
                             const Tensor& bias) {
  return chunked_sum({hidden, weight, bias}, cross_entropy_of(labels), chunk_rows);
}

Tensor chunked_losses(const Tensor& hidden, const Tensor& weight, const Tensor& labels, int64_t chunk_rows) {
  const torch::NoGradGuard no_grad;
  std::vector<Tensor> losses;
  visit_log_softmax({hidden, weight, {}}, chunk_rows, [&](int64_t start, const Tensor& log_p) {
    const auto label = labels.narrow(0, start, log_p.size(0)).unsqueeze(1);
    losses.push_back(-(log_p.gather(1, label.clamp_min(0)) * label.ge(0)).squeeze(1));
  });
  return torch::cat(losses);
}

}  // namespace graft::nn
