#include "graft/nn/scaled_dot_product.h"

#include <torch/torch.h>

#include <cmath>
#include <limits>

#include "graft/nn/autocast.h"
#include "graft/nn/dropout.h"

namespace graft::nn {
namespace {

using torch::Tensor;

/// Measured for T of 8 to 512 and D of 16 to 128: beyond, the kernel is as fast, or the weights that the backward pass keeps
/// (H T floats a query) are no longer few beside everything else that it keeps of a block (some 20 H D).
bool short_examples(const Tensor& query, const Tensor& key) {
  constexpr int64_t kFewQueries = 16;  // starting five operations costs more than one
  const bool half = query.scalar_type() == torch::kBFloat16;
  return query.size(0) * query.size(2) >= kFewQueries && key.size(2) <= (half ? 256 : 3 * query.size(3));
}

}  // namespace

Tensor scaled_dot_product(const Tensor& query, const Tensor& key, const Tensor& value, const Tensor& mask,
                          const DotProductOptions& o) {
  if (!query.device().is_cpu() || (o.dropout == 0 && !short_examples(query, key)))
    return at::scaled_dot_product_attention(query, key, value, mask.defined() ? std::optional(mask) : std::nullopt,
                                            o.dropout, o.causal, o.scale);
  constexpr auto kHidden = -std::numeric_limits<double>::infinity();
  const auto scale = o.scale.value_or(1 / std::sqrt(static_cast<double>(query.size(-1))));
  // In float32, under autocast too: these products are small, and for bfloat16 a kernel would be made for each shape.
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::DispatchKey::AutocastCPU);
  auto scores = torch::matmul(widened(query) * scale, widened(key).transpose(-1, -2));  // (b, H, Tq, T)
  if (o.causal) {
    const auto later = torch::ones({query.size(-2), key.size(-2)}, torch::kBool).triu(1);
    scores = scores.masked_fill(later, kHidden);
  } else if (mask.defined() && mask.scalar_type() == torch::kBool) {
    scores = scores.masked_fill(mask.logical_not(), kHidden);
  } else if (mask.defined()) {
    scores = scores + mask;
  }
  const auto weights = nn::dropout(torch::softmax(scores, -1), o.dropout, o.dropout > 0);
  return torch::matmul(weights, widened(value)).to(query.scalar_type());
}

}  // namespace graft::nn
