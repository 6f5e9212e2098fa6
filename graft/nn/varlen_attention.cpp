#include "graft/nn/varlen_attention.h"

#include <ATen/ops/_efficient_attention_forward.h>
#include <ATen/ops/_flash_attention_forward.h>

#include <algorithm>

namespace graft::nn {
namespace {

using torch::Tensor;

/// 0, and the sums of the first 1, 2, ... lengths, int32 on the device. All layers of a batch ask for the same, so the last
/// ones are kept.
Tensor cumulative(const std::vector<int64_t>& lengths, torch::Device device) {
  struct Made {
    std::vector<int64_t> lengths;
    Tensor sums;
  };
  thread_local std::vector<Made> made;
  for (const auto& one : made)
    if (one.sums.device() == device && one.lengths == lengths) return one.sums;
  std::vector<int32_t> sums{0};
  for (const auto n : lengths) sums.push_back(sums.back() + static_cast<int32_t>(n));
  if (made.size() >= 4) made.erase(made.begin());
  made.push_back({lengths, torch::tensor(sums, torch::kInt32).pin_memory().to(device, /*non_blocking=*/true)});
  return made.back().sums;
}

}  // namespace

std::optional<Tensor> varlen_attention(const Tensor& query, const Tensor& key, const Tensor& value,
                                       const std::vector<int64_t>& query_lengths, const std::vector<int64_t>& lengths,
                                       const VarlenOptions& o) {
  const auto D = query.size(2);
  if (!query.is_cuda() || D % 8 != 0 || D > 256) return {};
  const auto longest_query = *std::max_element(query_lengths.begin(), query_lengths.end()),
             longest = *std::max_element(lengths.begin(), lengths.end());
  if (longest_query == 0) return query;
  const auto queries = cumulative(query_lengths, query.device()), keys = cumulative(lengths, query.device());
  const auto type = query.scalar_type();
  if (type == torch::kBFloat16 || type == torch::kFloat16) {
    const auto left = o.window > 0 ? std::optional<int64_t>(o.window - 1) : std::nullopt;
    const auto right = o.window > 0 ? std::optional<int64_t>(0) : std::nullopt;
    return std::get<0>(at::_flash_attention_forward(query, key, value, queries, keys, longest_query, longest, o.dropout,
                                                    o.causal, /*return_debug_mask=*/false, o.scale, left, right));
  }
  if (type != torch::kFloat32 || o.window > 0) return {};
  const auto K = key.size(1), H = query.size(1);
  const auto heads = [&](const Tensor& x) {  // (1, N, H, D): query heads h * H/K ... share head h
    return (K == H ? x : x.repeat_interleave(H / K, 1)).unsqueeze(0);
  };
  const int64_t mask = o.causal ? 1 : 0;  // 1: a query sees as many keys as stand before it and itself
  return std::get<0>(at::_efficient_attention_forward(query.unsqueeze(0), heads(key), heads(value), {}, queries, keys,
                                                      longest_query, longest, o.dropout, mask,
                                                      /*compute_log_sumexp=*/torch::GradMode::is_enabled(), o.scale))
      .squeeze(0);
}

}  // namespace graft::nn
