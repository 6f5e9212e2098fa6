// ViT: an image as a sequence of patches.
// Paper:    Dosovitskiy et al. 2021, https://arxiv.org/abs/2010.11929
// Weights:  transformers `vit` and timm `vit_*` (also with registers, and with gated feed-forward layers) by their
//           config.json; bare ones of timm, of the authors of MAE, DINO and DINOv2, and torchvision's by the names of their
//           tensors (`layout` in graft.json). Each is saved in the names that it came with.
// Parity:   tests/parity/vit-*, transformers 5.17, timm 1.0.31, torchvision 0.26 and the authors' code: outputs and
//           gradients (tests/models/parity_test.cpp).
// Differs:  positions are resized whenever the image is of another size, by the rule of whose code it is. A bare encoder of
//           MAE or DINO without its decoder or projection head looks like timm's, so timm's rule resizes its positions;
//           "layout" in a graft.json beside it ("mae", "dino") says otherwise.
#include <cmath>

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
  if (task.kind == "masked_image") pretrain(*model, json, DecoderNames::transformers());
  else if (task.kind == "features") model->head = image_features(head, "vit.pooler.dense");
  else model->head = image_classifier(head, task.num_labels);
  return model;
}

/// Whose code a file without transformers' configuration comes from. They share an arithmetic and differ in names, in the
/// rule that resizes positions, and in what a classifier reads.
enum class Layout { timm, mae, dino, dinov2, torchvision };

Layout layout_of(const Json& config) {
  if (is_timm(config)) return Layout::timm;
  const auto layout = config.at("layout").get<std::string>();
  for (const auto& [name, known] : {std::pair{"timm", Layout::timm},
                                    {"mae", Layout::mae},
                                    {"dino", Layout::dino},
                                    {"dinov2", Layout::dinov2},
                                    {"torchvision", Layout::torchvision}})
    if (layout == name) return known;
  fail(Kind::model,
       "graft.json: the layout `{}` of a ViT is unknown; known are timm, mae, dino, dinov2 and torchvision.", layout);
}

VisionNames names_of(Layout layout, bool swiglu) {
  if (layout == Layout::torchvision) return VisionNames::torchvision();
  auto names = VisionNames::timm();
  if (layout == Layout::dinov2) {
    names.registers = "register_tokens";
    if (swiglu) names.inner = "mlp.w12", names.outer = "mlp.w3";
  }
  return names;
}

/// torchvision keeps query, key and value as parameters of their module, and older files have other names in the
/// feed-forward layers.
std::string key_here(const std::string& key) {
  for (const auto& [theirs, ours] :
       {std::pair<std::string, std::string>{".self_attention.in_proj_", ".self_attention.in_proj."},
        {".mlp.linear_1.", ".mlp.0."},
        {".mlp.linear_2.", ".mlp.3."}})
    if (const auto at = key.find(theirs); key.starts_with("encoder.layers.") && at != key.npos)
      return key.substr(0, at) + ours + key.substr(at + theirs.size());
  return key;
}

/// What the tensors of a file tell.
struct SeenViT {
  int64_t embed_dim = 0, depth = 0, intermediate = 0, patch_size = 0, in_chans = 3, image_size = 0, reg_tokens = 0,
          table_prefix = 1;
  bool class_token = true, qkv_bias = true, layer_scale = false, swiglu = false, fc_norm = false;

  template <class Visitor>
  void visit(Visitor&& field) {
    field("embed_dim", embed_dim, "C");
    field("depth", depth, "layers");
    field("intermediate", intermediate, "F");
    field("patch_size", patch_size, "side of a patch");
    field("in_chans", in_chans, "channels of an image");
    field("image_size", image_size, "side of the images that the positions are for");
    field("reg_tokens", reg_tokens, "register tokens");
    field("table_prefix", table_prefix, "special tokens that have positions");
    field("class_token", class_token, "whether there is one");
    field("qkv_bias", qkv_bias, "biases of query, key and value");
    field("layer_scale", layer_scale, "whether branches are scaled");
    field("swiglu", swiglu, "gated feed-forward layers");
    field("fc_norm", fc_norm, "a norm behind the pooling in place of the last one");
  }
};

/// What no tensor tells: timm's `model_args`, or graft.json.
struct GivenViT {
  int64_t num_heads = 0;
  double drop_rate = 0, pos_drop_rate = 0, proj_drop_rate = 0, attn_drop_rate = 0, drop_path_rate = 0;
  std::string act_layer = "gelu";

  template <class Visitor>
  void visit(Visitor&& field) {
    field("num_heads", num_heads, "heads");
    field("drop_rate", drop_rate, "dropout before the classifier");
    field("pos_drop_rate", pos_drop_rate, "dropout behind the positions");
    field("proj_drop_rate", proj_drop_rate, "dropout behind attention and feed-forward");
    field("attn_drop_rate", attn_drop_rate, "dropout on attention weights");
    field("drop_path_rate", drop_path_rate, "drop path of the last layer, linear from 0");
    field("act_layer", act_layer, "activation of the feed-forward layers");
  }
};

/// Attention heads of the published ViTs (timm, DeiT, MAE, DINO, DINOv2, torchvision) by width; 0 for other widths.
int64_t published_heads(int64_t width) {
  for (const auto& [known, heads] : {std::pair{192, 3},
                                     {256, 4},
                                     {320, 5},
                                     {384, 6},
                                     {512, 8},
                                     {640, 10},
                                     {768, 12},
                                     {832, 13},
                                     {896, 14},
                                     {1024, 16},
                                     {1152, 16},
                                     {1280, 16},
                                     {1408, 16},
                                     {1536, 24},
                                     {1664, 16}})
    if (width == known) return heads;
  return 0;
}

/// Side of a square grid with so many patches; 0 when there is none.
int64_t side_of(int64_t patches) {
  const auto side = static_cast<int64_t>(std::llround(std::sqrt(static_cast<double>(std::max<int64_t>(0, patches)))));
  return side * side == patches ? side : 0;
}

/// Adds what the tensors show: timm's names say little of what a ViT has, and the others have no configuration.
Json describe(Json config, const io::TensorMap& tensors) {
  if (!is_timm(config) && !config.contains("layout")) return config;
  const auto layout = layout_of(config);
  const bool swiglu = tensors.contains("blocks.0.mlp.w12.weight");
  const auto n = names_of(layout, swiglu);
  const auto shape = [&](const std::string& key) {
    const auto found = tensors.find(key);
    return found == tensors.end() ? std::vector<int64_t>{} : found->second.shape;
  };
  const auto first = n.layer + "0.";
  const auto patches = shape(n.patches + ".weight"), inner = shape(first + n.inner + ".weight"),
             outer = shape(first + n.outer + ".weight"), table = shape(n.positions);
  GRAFT_CHECK(model,
              patches.size() == 4 && patches[2] > 0 && inner.size() == 2 && outer.size() == 2 && table.size() == 3,
              "the weights have no {}, {} and {}{}: this is no ViT that graft computes.", n.patches, n.positions, first,
              n.inner);
  SeenViT s;
  s.embed_dim = patches[0];
  s.in_chans = patches[1];
  s.patch_size = patches[2];
  while (tensors.contains(fmt::format("{}{}.{}.weight", n.layer, s.depth, n.norm1))) ++s.depth;
  s.intermediate = outer[1];
  s.swiglu = inner[0] == 2 * outer[1];
  s.class_token = tensors.contains(n.class_token);
  s.reg_tokens = shape(n.registers).empty() ? 0 : shape(n.registers)[1];
  s.qkv_bias = tensors.contains(first + n.qkv + ".bias");
  s.layer_scale = tensors.contains(first + n.scale1);
  // An encoder that was adapted has neither: its last norm stood in the classifier.
  const auto pool = config.value("model_args", Json::object()).value("global_pool", config.value("global_pool", ""));
  s.fc_norm = !tensors.contains(n.norm + ".weight") && (tensors.contains("fc_norm.weight") || pool == "avg");
  // The table has rows for all special tokens, for the class token, or for patches only.
  const auto rows = table[1], first_token = s.class_token ? int64_t{1} : 0;
  const auto stated = is_timm(config) ? timm_image_size(config) / s.patch_size : 0;
  for (const auto prefix : {first_token + s.reg_tokens, first_token, int64_t{0}}) {
    const auto side = side_of(rows - prefix);
    if (side == 0 || (stated > 0 && side != stated)) continue;
    s.table_prefix = prefix;
    s.image_size = stated > 0 ? timm_image_size(config) : side * s.patch_size;
    break;
  }
  GRAFT_CHECK(model, s.image_size > 0,
              "{}: has {} rows, which is no square grid of patches{}. graft reads position tables of square images.",
              n.positions, rows, stated > 0 ? fmt::format(" of {} x {} as config.json says", stated, stated) : "");
  Json found = Json::object();
  s.visit([&](const char* name, auto& value, const char*) { found[name] = value; });
  config["vit"] = found;
  if (is_timm(config)) return config;
  const auto classifier = shape(layout == Layout::torchvision ? "heads.head.weight" : "head.weight");
  if (!config.contains("num_classes") && !config.contains("id2label"))
    config["num_classes"] = classifier.size() == 2 ? classifier[0] : 0;
  if (const auto width = shape("decoder_embed.weight"); layout == Layout::mae && width.size() == 2) {
    int64_t layers = 0;
    while (tensors.contains(fmt::format("decoder_blocks.{}.norm1.weight", layers))) ++layers;
    config["decoder_hidden_size"] = width[0];
    config["decoder_num_hidden_layers"] = layers;
    config["decoder_intermediate_size"] = shape("decoder_blocks.0.mlp.fc1.weight").at(0);
    if (!config.contains("decoder_num_attention_heads")) {
      GRAFT_CHECK(model, width[0] == 512,
                  "nothing tells how many attention heads a decoder of width {} has. Write them as "
                  "\"decoder_num_attention_heads\" into a graft.json beside the weights.",
                  width[0]);
      config["decoder_num_attention_heads"] = 16;
    }
  }
  return config;
}

/// Variants of timm that would load and compute something else.
void refuse_variants(const Json& json) {
  refuse_timm_arguments(
      json, {"qk_norm", "pre_norm", "block_fn", "norm_layer", "attn_layer", "scale_attn_norm", "scale_mlp_norm"});
  const auto name = json.at("architecture").get<std::string>();
  for (const auto& [part, what] : {std::pair{"clip", "a norm before the first layer"},
                                   {"_rpn_", "norms behind attention and feed-forward instead of before them"},
                                   {"_rope_", "rotary positions"},
                                   {"_xp_", "attention and feed-forward side by side"},
                                   {"pwee", "attention and feed-forward side by side"},
                                   {"_18x2_", "two branches side by side"},
                                   {"_map_", "pooling by attention"}})
    GRAFT_CHECK(model, name.find(part) == std::string::npos,
                "config.json: `{}` has {}, which graft does not compute for timm's ViT.", name, what);
}

/// timm's published activation, where `model_args` says nothing: SigLIP's second version has another one.
std::string published_activation(const std::string& name) {
  const bool tanh = name.find("siglip") != std::string::npos &&
                    (name.find("patch32") != std::string::npos || name.find("giantopt") != std::string::npos ||
                     name.find("so400m_patch16") != std::string::npos ||
                     (name.find("large") != std::string::npos && name.ends_with("512")));
  return tanh ? "gelu_tanh" : "gelu";
}

nn::PositionRule rule_of(Layout layout, int64_t registers) {
  if (layout == Layout::mae) return nn::PositionRule::bicubic;
  if (layout == Layout::torchvision) return nn::PositionRule::bicubic_aligned;
  const bool offset = layout == Layout::dino || (layout == Layout::dinov2 && registers == 0);
  return offset ? nn::PositionRule::bicubic_offset : nn::PositionRule::bicubic_antialiased;
}

/// timm's with its config.json, and bare ones.
std::shared_ptr<Model> from_tensors(const Json& json, const Task& task) {
  GRAFT_CHECK(model, json.contains("vit"),
              "config.json: says nothing of the widths of this ViT; give the folder with its weights.");
  const bool timm = is_timm(json);
  const auto layout = layout_of(json);
  const auto s = read_config<SeenViT>(json["vit"]);
  GivenViT published;
  if (timm) {
    refuse_variants(json);
    published.act_layer = published_activation(json["architecture"]);
  }
  auto given = read_config<GivenViT>(timm ? json.value("model_args", Json::object()) : json, published);
  if (given.num_heads == 0) given.num_heads = published_heads(s.embed_dim);
  GRAFT_CHECK(model, given.num_heads > 0,
              "nothing tells how many attention heads a ViT of width {} has. Write them as \"num_heads\" into {}.",
              s.embed_dim, timm ? "model_args of its config.json" : "a graft.json beside the weights");
  VisionOptions o;
  o.hidden_size = s.embed_dim;
  o.num_layers = s.depth;
  o.num_heads = given.num_heads;
  o.intermediate_size = s.intermediate;
  o.image_size = s.image_size;
  o.patch_size = s.patch_size;
  o.num_channels = s.in_chans;
  o.hidden_act = given.act_layer == "gelu_tanh" ? "gelu_pytorch_tanh" : given.act_layer;
  o.layer_norm_eps = 1e-6;
  o.qkv_bias = s.qkv_bias;
  o.has_class_token = s.class_token;
  o.has_mask_token = layout == Layout::dinov2;
  o.num_registers = s.reg_tokens;
  o.table_prefix = s.table_prefix;
  o.rule = rule_of(layout, s.reg_tokens);
  o.layer_scale = s.layer_scale;
  o.swiglu = s.swiglu;
  o.hidden_dropout = given.proj_drop_rate;
  o.position_dropout = given.pos_drop_rate;
  o.attention_dropout = given.attn_drop_rate;
  for (int64_t i = 0; i < s.depth; ++i)
    o.drop_path.push_back(s.depth > 1 ? given.drop_path_rate * static_cast<double>(i) / static_cast<double>(s.depth - 1)
                                      : given.drop_path_rate);
  bool average = s.fc_norm || !s.class_token;
  if (timm) {
    const auto arguments = json.value("model_args", Json::object());
    const auto pool = arguments.value("global_pool", json.value("global_pool", average ? "avg" : "token"));
    GRAFT_CHECK(model, pool == "token" || pool == "avg",
                "config.json: global_pool `{}` is not computed; `token` and `avg` are.", pool);
    average = pool == "avg";
  }
  o.final_norm = !s.fc_norm;
  if (layout == Layout::mae) o.positions_train = task.num_labels > 0;  // sin-cos, until it is fine-tuned
  const auto model = std::make_shared<VisionTransformer>(names_of(layout, s.swiglu), o);
  ImageHeadOptions head{.pooling = average ? Pooling::patches : Pooling::first,
                        .width = s.embed_dim,
                        .special_tokens = o.special_tokens(),
                        .classifier = layout == Layout::torchvision ? "heads.head" : "head",
                        .norm = s.fc_norm ? "fc_norm" : "",
                        .norm_eps = 1e-6,
                        .dropout = given.drop_rate};
  if (task.kind == "features") head.pooling = Pooling::none;
  if (task.kind == "masked_image")
    pretrain(*model, json, layout == Layout::mae ? DecoderNames::authors() : DecoderNames::transformers());
  else model->head = task.kind == "features" ? image_features(head) : image_classifier(head, task.num_labels);
  return model;
}

std::shared_ptr<Model> create(const Json& json, const Task& task) {
  return is_timm(json) || json.contains("layout") ? from_tensors(json, task) : from_transformers(json, task);
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
          .rules = {drop("vit.pooler."), drop("classifier."), drop("head."), drop("heads."), drop("fc_norm."),
                    drop("pre_logits."), drop("vit.embeddings.mask_token"), drop("decoder."), drop("decoder_"),
                    drop("mask_token"), drop("dino_head."), drop("ibot_head.")},
          .language_task = "masked_image",
          .describe = describe,
          .key_here = key_here,
          .model_type_for = model_type_for};
}

}  // namespace graft::models
