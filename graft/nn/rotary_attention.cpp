#include "graft/nn/rotary_attention.h"

namespace graft::nn {

RotaryAttentionImpl::RotaryAttentionImpl(int64_t width, int64_t head_width, bool with_bias, const CausalOptions& o)
    : options(o) {
  const auto queries = o.num_heads * head_width, keys = o.num_key_value_heads * head_width;
  q_proj = register_module("q_proj", Linear(width, queries, with_bias));
  k_proj = register_module("k_proj", Linear(width, keys, with_bias));
  v_proj = register_module("v_proj", Linear(width, keys, with_bias));
  o_proj = register_module("o_proj", Linear(queries, width, with_bias));
}

Tensor RotaryAttentionImpl::forward(const Tensor& x, const CausalRows& rows, const Rotation& rotation) {
  const auto chosen = [&](const Tensor& t) { return rows.index.defined() ? t.index_select(0, rows.index) : t; };
  const auto turned = [](const Tensor& t, int64_t heads, const Rotation& by) {
    return rotate(t.view({t.size(0), heads, t.size(1) / heads}), by).flatten(1);
  };
  const auto query = turned(q_proj(chosen(x)), options.num_heads, Rotation{chosen(rotation.cos), chosen(rotation.sin)});
  const auto key = turned(k_proj(x), options.num_key_value_heads, rotation);
  auto now = options;
  if (!is_training()) now.dropout = 0;
  return o_proj(causal_attention(query, key, v_proj(x), rows, now));
}

}  // namespace graft::nn
