#include "graft/models/vision_transformer.h"

#include "graft/core/error.h"
#include "graft/nn/attention.h"
#include "graft/nn/drop_path.h"
#include "graft/nn/dropout.h"
#include "graft/nn/fresh.h"
#include "graft/nn/levels.h"

namespace graft::models {
namespace {

constexpr double kInitializerRange = 0.02;

Tensor fresh(std::vector<int64_t> shape) { return nn::fresh_normal(shape, kInitializerRange); }

/// Rows that a head reads, where it reads only some.
void narrow_to(Rows& hidden, const ReadIndex* needed) {
  if (!needed) return;
  hidden = {hidden.values.index_select(0, needed->index), needed->lengths};
}

}  // namespace

VisionNames VisionNames::transformers(const std::string& prefix, bool dinov2) {
  const auto embeddings = prefix + ".embeddings.";
  VisionNames n;
  n.embeddings = {embeddings};
  n.patches = embeddings + "patch_embeddings.projection";
  n.class_token = embeddings + "cls_token";
  n.positions = embeddings + "position_embeddings";
  n.registers = embeddings + "register_tokens";
  n.mask_token = embeddings + "mask_token";
  n.layer = prefix + ".encoder.layer.";
  n.norm = prefix + ".layernorm";
  n.norm1 = dinov2 ? "norm1" : "layernorm_before";
  n.norm2 = dinov2 ? "norm2" : "layernorm_after";
  n.query = "attention.attention.query";
  n.key = "attention.attention.key";
  n.value = "attention.attention.value";
  n.attention_output = "attention.output.dense";
  n.inner = dinov2 ? "mlp.fc1" : "intermediate.dense";
  n.outer = dinov2 ? "mlp.fc2" : "output.dense";
  n.scale1 = "layer_scale1.lambda1";
  n.scale2 = "layer_scale2.lambda1";
  return n;
}

VisionNames VisionNames::timm() {
  VisionNames n;
  n.embeddings = {"patch_embed.", "cls_token", "reg_token", "register_tokens", "pos_embed"};
  n.patches = "patch_embed.proj";
  n.class_token = "cls_token";
  n.positions = "pos_embed";
  n.registers = "reg_token";
  n.mask_token = "mask_token";
  n.layer = "blocks.";
  n.norm = "norm";
  n.norm1 = "norm1";
  n.norm2 = "norm2";
  n.qkv = "attn.qkv";
  n.attention_output = "attn.proj";
  n.inner = "mlp.fc1";
  n.outer = "mlp.fc2";
  n.scale1 = "ls1.gamma";
  n.scale2 = "ls2.gamma";
  return n;
}

VisionNames VisionNames::torchvision() {
  VisionNames n;
  n.embeddings = {"conv_proj.", "class_token", "encoder.pos_embedding"};
  n.patches = "conv_proj";
  n.class_token = "class_token";
  n.positions = "encoder.pos_embedding";
  n.layer = "encoder.layers.encoder_layer_";
  n.norm = "encoder.ln";
  n.norm1 = "ln_1";
  n.norm2 = "ln_2";
  n.qkv = "self_attention.in_proj";
  n.attention_output = "self_attention.out_proj";
  n.inner = "mlp.0";
  n.outer = "mlp.3";
  return n;
}

VisionLayer::VisionLayer(torch::nn::Module& root, const std::string& prefix, const VisionNames& n,
                         const VisionOptions& o, double drop_path)
    : act(nn::activation(o.hidden_act, "config.json")),
      swiglu(o.swiglu),
      num_heads(o.num_heads),
      hidden_dropout(o.hidden_dropout),
      attention_dropout(o.attention_dropout),
      drop_path(drop_path) {
  const auto C = o.hidden_size, F = o.intermediate_size;
  const auto linear = [&](const std::string& name, int64_t in, int64_t out, bool bias) {
    return nn::place(root, prefix + "." + name, nn::Linear(in, out, bias));
  };
  norm1 = nn::place(root, prefix + "." + n.norm1, nn::LayerNorm(C, o.layer_norm_eps));
  if (n.qkv.empty()) {
    query = linear(n.query, C, C, o.qkv_bias);
    key = linear(n.key, C, C, o.qkv_bias);
    value = linear(n.value, C, C, o.qkv_bias);
  } else {
    qkv = linear(n.qkv, C, 3 * C, o.qkv_bias);
  }
  output = linear(n.attention_output, C, C, true);
  if (o.layer_scale) scale1 = nn::place_parameter(root, prefix + "." + n.scale1, torch::ones({C}));
  norm2 = nn::place(root, prefix + "." + n.norm2, nn::LayerNorm(C, o.layer_norm_eps));
  inner = linear(n.inner, C, swiglu ? 2 * F : F, true);
  outer = linear(n.outer, F, C, true);
  if (o.layer_scale) scale2 = nn::place_parameter(root, prefix + "." + n.scale2, torch::ones({C}));
  module = &nn::level(root, prefix);
}

Tensor VisionLayer::forward(const Tensor& x, const std::vector<int64_t>& lengths) {
  const auto B = static_cast<int64_t>(lengths.size());
  const auto dropped = [&](const Tensor& y) { return nn::dropout(y, hidden_dropout, is_training()); };
  const auto y = norm1(x);
  Tensor q, k, v;
  if (qkv) {
    const auto parts = qkv(y).chunk(3, -1);
    q = parts[0], k = parts[1], v = parts[2];
  } else {
    q = query(y), k = key(y), v = value(y);
  }
  const auto mixed = nn::attention(q, k, v, lengths, lengths, num_heads, is_training() ? attention_dropout : 0.0);
  auto branch = dropped(output(mixed));
  if (scale1.defined()) branch = branch * scale1;
  const auto z = x + nn::drop_path(branch, B, drop_path, is_training());
  branch = inner(norm2(z));
  if (swiglu) {
    const auto halves = branch.chunk(2, -1);
    branch = torch::silu(halves[0]) * halves[1];
  } else {
    branch = act(branch);
  }
  branch = dropped(outer(branch));
  if (scale2.defined()) branch = branch * scale2;
  return z + nn::drop_path(branch, B, drop_path, is_training());
}

VisionTransformer::VisionTransformer(VisionNames the_names, VisionOptions the_options)
    : names(std::move(the_names)), options(std::move(the_options)) {
  const auto& o = options;
  GRAFT_CHECK(model, o.num_heads > 0 && o.hidden_size % o.num_heads == 0,
              "config.json: the width {} is not a multiple of the {} attention heads.", o.hidden_size, o.num_heads);
  GRAFT_CHECK(model, o.patch_size > 0 && o.image_size >= o.patch_size,
              "config.json: the image size {} is below the patch size {}.", o.image_size, o.patch_size);
  const auto side = o.image_size / o.patch_size, C = o.hidden_size;
  patches =
      nn::place(*this, names.patches,
                nn::Conv2d(nn::ConvOptions{
                    .in = o.num_channels, .out = C, .kernel = o.patch_size, .stride = o.patch_size, .bias = true}));
  nn::draw_fresh(patches->weight, [](Tensor& weight) { weight.normal_(0, kInitializerRange); });
  if (o.has_class_token) class_token = nn::place_parameter(*this, names.class_token, fresh({1, 1, C}));
  if (o.has_mask_token) mask_token = nn::place_buffer(*this, names.mask_token, torch::zeros({1, C}));
  if (o.num_registers > 0) registers = nn::place_parameter(*this, names.registers, fresh({1, o.num_registers, C}));
  const auto table = fresh({1, o.table_prefix + side * side, C});
  positions = o.positions_train ? nn::place_parameter(*this, names.positions, table)
                                : nn::place_buffer(*this, names.positions, table);

  Chain image{.name = "image", .inputs = {"pixel_values"}};
  groups.push_back({"embeddings", names.embeddings});
  image.blocks.push_back({.name = "embeddings", .groups = {"embeddings"}, .reads = {"pixel_values"}});
  for (int64_t i = 0; i < o.num_layers; ++i) {
    const auto name = "layer " + std::to_string(i), prefix = names.layer + std::to_string(i);
    layers.emplace_back(*this, prefix, names, o, o.drop_path.empty() ? 0.0 : o.drop_path.at(i));
    groups.push_back({name, {prefix + "."}});
    image.blocks.push_back({.name = name, .groups = {name}});
  }
  if (o.final_norm) {
    norm = nn::place(*this, names.norm, nn::LayerNorm(C, o.layer_norm_eps));
    groups.push_back({"norm", {names.norm + "."}});
    image.blocks.push_back({.name = "norm", .groups = {"norm"}});
  }
  chains = {image};
}

Tensor VisionTransformer::embed(const Tensor& pixels) {
  const auto& o = options;
  GRAFT_CHECK(
      data,
      pixels.dim() == 4 && pixels.size(1) == o.num_channels && pixels.size(2) >= o.patch_size &&
          pixels.size(3) >= o.patch_size,
      "pixel_values: an image has {} channels and {} by {} pixels; the model takes {} channels and at least one "
      "patch of {} by {} pixels.",
      pixels.dim() == 4 ? pixels.size(1) : 0, pixels.dim() == 4 ? pixels.size(2) : 0,
      pixels.dim() == 4 ? pixels.size(3) : 0, o.num_channels, o.patch_size, o.patch_size);
  const auto map = patches(pixels);  // (B, C, h, w)
  const auto B = map.size(0), h = map.size(2), w = map.size(3);
  auto tokens = map.flatten(2).transpose(1, 2);  // (B, h * w, C)
  const auto table = nn::resized_positions(positions, o.table_prefix, h, w, o.rule);
  const auto of_all = [&](const Tensor& special) { return special.expand({B, -1, -1}); };
  // What the table has rows for is put in before the addition, the rest behind it.
  std::vector<Tensor> special;
  if (o.has_class_token) special.push_back(of_all(class_token));
  if (o.num_registers > 0) special.push_back(of_all(registers));
  if (o.table_prefix == o.special_tokens()) {
    special.push_back(tokens);
    tokens = torch::cat(special, 1) + table;
  } else if (o.table_prefix == 0) {
    special.push_back(tokens + table);
    tokens = torch::cat(special, 1);
  } else {  // positions for the class token, none for the registers
    special.front() = special.front() + table.narrow(0, 0, 1);
    special.push_back(tokens + table.narrow(0, 1, h * w));
    tokens = torch::cat(special, 1);
  }
  return nn::dropout(tokens, o.position_dropout, patches->is_training());  // (B, T, C)
}

Tensor VisionTransformer::encode(const Tensor& tokens) {
  const auto B = tokens.size(0), T = tokens.size(1);
  const std::vector<int64_t> lengths(B, T);
  auto x = tokens.reshape({B * T, -1});
  for (auto& layer : layers) x = layer.forward(x, lengths);
  if (norm) x = norm(x);
  return x.view({B, T, -1});
}

int64_t seen_patches(int64_t patches, double mask_ratio) {
  return static_cast<int64_t>(static_cast<double>(patches) * (1 - mask_ratio));
}

void VisionTransformer::mask_patches(double ratio) {
  mask_ratio = ratio;
  chains.front().blocks.front().writes.emplace_back("ids_restore");
}

Tensor VisionTransformer::leave_out(const Tensor& tokens, const Rows& noise, Activations& embedded) const {
  const auto B = tokens.size(0), S = options.special_tokens(), L = tokens.size(1) - S, C = tokens.size(2);
  GRAFT_CHECK(data, noise.values.dim() == 2 && noise.values.size(0) == B && noise.values.size(1) == L,
              "noise: expected one value for each of the {} patches of {} images.", L, B);
  const auto shuffled = noise.values.argsort(/*stable=*/true, 1, false);
  const auto kept = shuffled.narrow(1, 0, seen_patches(L, *mask_ratio));
  embedded.kept["ids_restore"] = {shuffled.argsort(/*stable=*/true, 1, false), noise.lengths};
  const auto patches = tokens.narrow(1, S, L).gather(1, kept.unsqueeze(-1).expand({-1, -1, C}));
  return torch::cat({tokens.narrow(1, 0, S), patches}, 1);
}

Activations VisionTransformer::forward_block(const Chain&, int64_t index, Activations x, const ReadIndex* needed) {
  if (index == 0) {
    const auto& pixels = x.kept.at("pixel_values");
    auto tokens = embed(pixels.values);
    Activations embedded;
    if (mask_ratio) {
      embedded.kept["pixel_values"] = pixels;  // the decoder's target
      if (const auto noise = x.kept.find("noise"); noise != x.kept.end())
        tokens = leave_out(tokens, noise->second, embedded);
    }
    const auto B = tokens.size(0), T = tokens.size(1);
    embedded.hidden = {tokens.reshape({B * T, -1}), std::vector<int64_t>(B, T)};
    narrow_to(embedded.hidden, needed);
    return embedded;
  }
  auto& hidden = x.hidden;
  if (index <= static_cast<int64_t>(layers.size())) {
    hidden.values = layers[index - 1].forward(hidden.values, hidden.lengths);
    narrow_to(hidden, needed);
    return x;
  }
  narrow_to(hidden, needed);
  hidden.values = norm(hidden.values);
  return x;
}

}  // namespace graft::models
