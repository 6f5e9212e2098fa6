#include "graft/nn/chunked_kl.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>

namespace graft::nn {
namespace {

using torch::Tensor;

constexpr double kNever = -std::numeric_limits<double>::infinity();
constexpr double kLeastMass = 1e-30;  // a remainder that is less counts as this

/// Row by row: (n, V), (n, V) -> (n, 1).
Tensor row_dots(const Tensor& a, const Tensor& b) { return at::linalg_vecdot(a, b, 1).unsqueeze(1); }

}  // namespace

ChunkLoss kl_to(const LogitsOf& source, KlDirection direction) {
  const auto log_q_of = std::make_shared<LogSoftmaxOf>(source);
  return [log_q_of, direction](const Block& block) {
    auto log_q = log_q_of->rows(block);
    if (direction == KlDirection::source_tuned) {
      const auto q = log_q.exp();
      if (block.of_logits.defined()) block.of_logits.add_(block.p, block.weight).sub_(q, block.weight);
      return row_dots(q, log_q.sub_(block.log_p)).sum();
    }
    auto ratio = log_q.sub_(block.log_p);  // -A
    const auto of_rows = row_dots(block.p, ratio);
    if (block.of_logits.defined()) block.of_logits.addcmul_(block.p, ratio.sub_(of_rows), -block.weight);
    return -of_rows.sum();
  };
}

ChunkLoss kl_to(const MostLikely& source, KlDirection direction) {
  return [source, direction](const Block& block) {
    const auto n = block.log_p.size(0);
    const auto type = block.log_p.scalar_type();
    const auto ids = source.ids.narrow(0, block.start, n).to(torch::kInt64);
    const auto log_q = source.log_p.narrow(0, block.start, n).to(type);                       // (n, K)
    const auto log_q_rest = source.log_rest.narrow(0, block.start, n).to(type).unsqueeze(1);  // (n, 1)
    const auto p = block.p.gather(1, ids), log_p = block.log_p.gather(1, ids);                // (n, K)
    const auto p_rest = block.p.scatter(1, ids, 0).sum(1, /*keepdim=*/true);                  // (n, 1)
    const auto ratio = log_p - log_q;                                                         // A
    const auto ratio_rest = p_rest.clamp_min(kLeastMass).log() - log_q_rest.clamp_min(std::log(kLeastMass));
    // By a logit of the remainder the derivative is p times a factor that all of it shares.
    Tensor of_rows, of_ids, factor;
    if (direction == KlDirection::tuned_source) {
      of_rows = (p * ratio).sum(1, true) + p_rest * ratio_rest;
      of_ids = p * (ratio - of_rows), factor = ratio_rest - of_rows;
    } else {
      const auto q = log_q.exp();
      of_rows = -(q * ratio).sum(1, true) - log_q_rest.exp() * ratio_rest;
      of_ids = p - q, factor = 1 - (-ratio_rest).exp();
    }
    if (block.of_logits.defined()) {
      block.of_logits.addcmul_(block.p, factor, block.weight);
      block.of_logits.scatter_add_(1, ids, (of_ids - p * factor) * block.weight);
    }
    return of_rows.sum();
  };
}

Tensor chunked_kl(const LogitsOf& tuned, const LogitsOf& source, KlDirection direction, int64_t chunk_rows) {
  return chunked_sum(tuned, kl_to(source, direction), chunk_rows);
}

Tensor chunked_kl(const LogitsOf& tuned, const MostLikely& source, KlDirection direction, int64_t chunk_rows) {
  return chunked_sum(tuned, kl_to(source, direction), chunk_rows);
}

MostLikely most_likely(const LogitsOf& logits, int64_t k, int64_t chunk_rows) {
  const torch::NoGradGuard no_grad;
  std::vector<Tensor> ids, log_p, log_rest;
  visit_log_softmax(logits, chunk_rows, [&](int64_t, Tensor all) {
    const auto [values, places] = all.topk(std::min(k, all.size(1)), 1);
    ids.push_back(places.to(torch::kInt32));
    log_p.push_back(values);
    log_rest.push_back(all.scatter_(1, places, kNever).logsumexp(1));
  });
  return {torch::cat(ids), torch::cat(log_p), torch::cat(log_rest)};
}

}  // namespace graft::nn
