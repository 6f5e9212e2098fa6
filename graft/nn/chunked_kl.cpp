#include "graft/nn/chunked_kl.h"

#include <algorithm>
#include <limits>

namespace graft::nn {
namespace {

using torch::Tensor;

constexpr double kNever = -std::numeric_limits<double>::infinity();

/// From log p (n, V) and A = log p - log q (n, V).
Tensor divergence(const Tensor& log_p, const Tensor& ratio, KlDirection direction, Tensor* of_logits) {
  auto p = log_p.exp();
  if (direction == KlDirection::tuned_source) {
    const auto of_rows = (p * ratio).sum(1, /*keepdim=*/true);
    if (of_logits) *of_logits = p.mul_(ratio - of_rows);
    return of_rows.sum();
  }
  const auto q = (log_p - ratio).exp_();
  if (of_logits) *of_logits = p.sub_(q);
  return -(q * ratio).sum();
}

}  // namespace

ChunkLoss kl_to(const LogitsOf& source, KlDirection direction) {
  return [source, direction](int64_t start, const Tensor& log_p, Tensor* of_logits) {
    return divergence(log_p, log_p - chunk_log_softmax(source, start, log_p.size(0)), direction, of_logits);
  };
}

ChunkLoss kl_to(const MostLikely& source, KlDirection direction) {
  return [source, direction](int64_t start, const Tensor& log_p, Tensor* of_logits) {
    const auto n = log_p.size(0);
    const auto rows = [&](const Tensor& x) { return x.narrow(0, start, n).to(log_p.scalar_type()); };
    const auto ids = source.ids.narrow(0, start, n).to(torch::kInt64);
    const auto rest = log_p.scatter(1, ids, kNever).logsumexp(1, /*keepdim=*/true) - rows(source.log_rest).unsqueeze(1);
    const auto ratio = rest.expand_as(log_p).scatter(1, ids, log_p.gather(1, ids) - rows(source.log_p));
    return divergence(log_p, ratio, direction, of_logits);
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
  const auto rows = logits.hidden.size(0), V = logits.matrix.size(0), chunk = rows_of_chunk(logits, chunk_rows);
  std::vector<Tensor> ids, log_p, log_rest;
  for (int64_t start = 0; start < rows; start += chunk) {
    const auto all = chunk_log_softmax(logits, start, std::min(chunk, rows - start));
    const auto [values, places] = all.topk(std::min(k, V), 1);
    ids.push_back(places.to(torch::kInt32));
    log_p.push_back(values);
    log_rest.push_back(all.scatter(1, places, kNever).logsumexp(1));
  }
  return {torch::cat(ids), torch::cat(log_p), torch::cat(log_rest)};
}

}  // namespace graft::nn
