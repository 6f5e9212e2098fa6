// ViT: an image as a sequence of patches.
// Paper:    Dosovitskiy et al. 2021, https://arxiv.org/abs/2010.11929
// Weights:  transformers `vit`, timm `vit_*` (also with registers); each in its own names, decided by config.json.
// Parity:   tests/parity/vit-*, transformers 5.17 and timm 1.0.31: outputs and gradients (tests/models/parity_test.cpp).
// Differs:  positions are resized whenever the image is of another size: by transformers' rule or by timm's.
#include "graft/core/error.h"
#include "graft/models/architectures.h"
#include "graft/models/config.h"
#include "graft/models/image_heads.h"
#include "graft/models/mae_decoder.h"
#include "graft/models/timm.h"
#include "graft/models/vision_transformer.h"

namespace graft::models {
namespace {

struct ViTConfig {
  int64_t hidden_size = 768, num_hidden_layers = 12, num_attention_heads = 12, intermediate_size = 3072;
  int64_t image_size = 224, patch_size = 16, num_channels = 3;
  std::string hidden_act = "gelu";
  double layer_norm_eps = 1e-12, hidden_dropout_prob = 0, attention_probs_dropout_prob = 0;
  bool qkv_bias = true;

  template <class Visitor>
  void visit(Visitor&& field) {
    field("hidden_size", hidden_size, "C");
    field("num_hidden_layers", num_hidden_layers, "layers");
    field("num_attention_heads", num_attention_heads, "heads");
    field("intermediate_size", intermediate_size, "F");
    field("image_size", image_size, "side of the images of pre-training");
    field("patch_size", patch_size, "side of a patch");
    field("num_channels", num_channels, "channels of an image");
    field("hidden_act", hidden_act, "activation of the feed-forward layers");
    field("layer_norm_eps", layer_norm_eps, "epsilon of the norms");
    field("hidden_dropout_prob", hidden_dropout_prob, "dropout after embeddings, attention and feed-forward");
    field("attention_probs_dropout_prob", attention_probs_dropout_prob, "dropout on attention weights");
    field("qkv_bias", qkv_bias, "biases of query, key and value");
  }
};

/// The head of masked_image, with what the encoder must do for it.
void pretrain(VisionTransformer& model, const Json& json) {
  const auto config = read_config<MaskedImageConfig>(json);
  model.mask_patches(config.mask_ratio);
  model.head = std::make_shared<MaskedImageHead>(config, model.options);
}

}  // namespace

VisionOptions transformers_vit_options(const Json& json) {
  const auto c = read_config<ViTConfig>(json);
  VisionOptions o;
  o.hidden_size = c.hidden_size;
  o.num_layers = c.num_hidden_layers;
  o.num_heads = c.num_attention_heads;
  o.intermediate_size = c.intermediate_size;
  o.image_size = c.image_size;
  o.patch_size = c.patch_size;
  o.num_channels = c.num_channels;
  o.hidden_act = c.hidden_act;
  o.layer_norm_eps = c.layer_norm_eps;
  o.qkv_bias = c.qkv_bias;
  o.hidden_dropout = o.position_dropout = c.hidden_dropout_prob;
  o.attention_dropout = c.attention_probs_dropout_prob;
  return o;
}

namespace {

std::shared_ptr<Model> from_transformers(const Json& json, const Task& task) {
  const auto o = transformers_vit_options(json);
  const auto model = std::make_shared<VisionTransformer>(VisionNames::transformers("vit", false), o);
  const ImageHeadOptions head{.pooling = Pooling::first, .width = o.hidden_size, .classifier = "classifier"};
  if (task.kind == "masked_image") pretrain(*model, json);
  else if (task.kind == "features") model->head = image_features(head, "vit.pooler.dense");
  else model->head = image_classifier(head, task.num_labels);
  return model;
}

/// What timm's architecture name says: vit_{tiny,small,base,large,huge}_patchP_S. `model_args` overrides it.
struct TimmViT {
  int64_t embed_dim = 768, depth = 12, num_heads = 12, patch_size = 16, in_chans = 3, reg_tokens = 0;
  double mlp_ratio = 4, drop_rate = 0, pos_drop_rate = 0, proj_drop_rate = 0, attn_drop_rate = 0, drop_path_rate = 0;
  bool class_token = true, qkv_bias = true, no_embed_class = false, qk_norm = false, pre_norm = false;
  std::optional<double> init_values;
  std::optional<bool> fc_norm;

  template <class Visitor>
  void visit(Visitor&& field) {
    field("embed_dim", embed_dim, "C");
    field("depth", depth, "layers");
    field("num_heads", num_heads, "heads");
    field("patch_size", patch_size, "side of a patch");
    field("in_chans", in_chans, "channels of an image");
    field("reg_tokens", reg_tokens, "register tokens");
    field("mlp_ratio", mlp_ratio, "F / C");
    field("drop_rate", drop_rate, "dropout before the classifier");
    field("pos_drop_rate", pos_drop_rate, "dropout behind the positions");
    field("proj_drop_rate", proj_drop_rate, "dropout behind attention and feed-forward");
    field("attn_drop_rate", attn_drop_rate, "dropout on attention weights");
    field("drop_path_rate", drop_path_rate, "drop path of the last layer, linear from 0");
    field("class_token", class_token, "whether there is one");
    field("qkv_bias", qkv_bias, "biases of query, key and value");
    field("no_embed_class", no_embed_class, "positions for patches only");
    field("qk_norm", qk_norm, "must be false");
    field("pre_norm", pre_norm, "must be false");
    field("init_values", init_values, "layer scale");
    field("fc_norm", fc_norm, "norm behind the pooling; with average pooling when absent");
  }
};

std::shared_ptr<Model> from_timm(const Json& json, const Task& task) {
  const auto name = json.at("architecture").get<std::string>();
  TimmViT published;
  for (const auto& [size, width, depth, heads] :
       {std::tuple{"_tiny_", 192, 12, 3}, std::tuple{"_small_", 384, 12, 6}, std::tuple{"_base_", 768, 12, 12},
        std::tuple{"_large_", 1024, 24, 16}, std::tuple{"_huge_", 1280, 32, 16}})
    if (name.find(size) != std::string::npos)
      published.embed_dim = width, published.depth = depth, published.num_heads = heads;
  if (const auto at = name.find("patch"); at != std::string::npos)
    published.patch_size = std::strtoll(name.c_str() + at + 5, nullptr, 10);
  if (const auto at = name.find("_reg"); at != std::string::npos) {
    published.reg_tokens = std::max(1LL, std::strtoll(name.c_str() + at + 4, nullptr, 10));
    published.no_embed_class = true;
  }
  if (name.find("dinov2") != std::string::npos) published.init_values = 1e-5;
  const auto c = read_config<TimmViT>(json.value("model_args", Json::object()), published);
  GRAFT_CHECK(
      model, !c.qk_norm && !c.pre_norm && name.find("clip") == std::string::npos,
      "config.json: `{}` has norms inside the attention or before the first layer, which graft does not compute "
      "for timm's ViT.",
      name);
  VisionOptions o;
  o.hidden_size = c.embed_dim;
  o.num_layers = c.depth;
  o.num_heads = c.num_heads;
  o.intermediate_size = static_cast<int64_t>(static_cast<double>(c.embed_dim) * c.mlp_ratio);
  o.image_size = timm_image_size(json);
  o.patch_size = c.patch_size;
  o.num_channels = c.in_chans;
  o.layer_norm_eps = 1e-6;
  o.qkv_bias = c.qkv_bias;
  o.has_class_token = c.class_token;
  o.num_registers = c.reg_tokens;
  o.table_prefix = c.no_embed_class ? 0 : o.special_tokens();
  o.rule = nn::PositionRule::bicubic_antialiased;
  o.layer_scale = c.init_values.has_value();
  o.hidden_dropout = c.proj_drop_rate;
  o.position_dropout = c.pos_drop_rate;
  o.attention_dropout = c.attn_drop_rate;
  for (int64_t i = 0; i < c.depth; ++i)
    o.drop_path.push_back(c.depth > 1 ? c.drop_path_rate * static_cast<double>(i) / static_cast<double>(c.depth - 1)
                                      : c.drop_path_rate);
  const auto pool = json.value("model_args", Json::object()).value("global_pool", json.value("global_pool", "token"));
  GRAFT_CHECK(model, pool == "token" || pool == "avg",
              "config.json: global_pool `{}` is not computed; `token` and `avg` are.", pool);
  const bool average = pool == "avg", fc_norm = c.fc_norm.value_or(average);
  o.final_norm = !fc_norm;
  const auto model = std::make_shared<VisionTransformer>(VisionNames::timm(), o);
  ImageHeadOptions head{.pooling = average ? Pooling::patches : Pooling::first,
                        .width = c.embed_dim,
                        .special_tokens = o.special_tokens(),
                        .classifier = "head",
                        .norm = fc_norm ? "fc_norm" : "",
                        .norm_eps = 1e-6,
                        .dropout = c.drop_rate};
  if (task.kind == "features") head.pooling = Pooling::none;
  if (task.kind == "masked_image") pretrain(*model, json);
  else model->head = task.kind == "features" ? image_features(head) : image_classifier(head, task.num_labels);
  return model;
}

std::shared_ptr<Model> create(const Json& json, const Task& task) {
  return is_timm(json) ? from_timm(json, task) : from_transformers(json, task);
}

std::string class_name(const Task& task) {
  if (task.kind == "features") return "ViTModel";
  if (task.kind == "masked_image") return "ViTMAEForPreTraining";
  return task.num_labels > 0 && task.kind != "tokens" ? "ViTForImageClassification" : "";
}

std::string model_type_for(const Task& task) { return task.kind == "masked_image" ? "vit_mae" : "vit"; }

}  // namespace

Architecture vit() {
  return {.model_type = "vit",
          .prefix = "vit",
          .create = create,
          .class_name = class_name,
          .rules = {drop("vit.pooler."), drop("classifier."), drop("head."), drop("fc_norm."), drop("pre_logits."),
                    drop("vit.embeddings.mask_token"), drop("decoder."), drop("decoder_"), drop("mask_token")},
          .language_task = "masked_image",
          .model_type_for = model_type_for};
}

}  // namespace graft::models
