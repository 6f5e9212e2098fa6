// DINOv2: a ViT with layer scale, trained without labels; RadDINO is one.
// Paper:    Oquab et al. 2023, https://arxiv.org/abs/2304.07193; RadDINO: Pérez-García et al. 2024, arXiv:2401.10815
// Weights:  transformers `dinov2`, gated feed-forward layers (giant) too. timm's and the authors' are in vit.cpp.
// Parity:   tests/parity/rad-dino-* (transformers 5.17) and dinov2-swiglu: outputs and gradients.
// Differs:  the mask token is kept for the file and trains never. `adapt` goes on by masked autoencoding, as with any ViT,
//           not by self-distillation; patches that are not seen are left out, and the decoder is not saved.
#include "graft/models/architectures.h"
#include "graft/models/config.h"
#include "graft/models/image_heads.h"
#include "graft/models/mae_decoder.h"
#include "graft/models/vision_transformer.h"

namespace graft::models {
namespace {

struct Dinov2Config {
  int64_t hidden_size = 768, num_hidden_layers = 12, num_attention_heads = 12, mlp_ratio = 4;
  int64_t image_size = 224, patch_size = 14, num_channels = 3;
  std::string hidden_act = "gelu";
  double layer_norm_eps = 1e-6, hidden_dropout_prob = 0, attention_probs_dropout_prob = 0, drop_path_rate = 0;
  bool qkv_bias = true, use_swiglu_ffn = false, use_mask_token = true;

  template <class Visitor>
  void visit(Visitor&& field) {
    field("hidden_size", hidden_size, "C");
    field("num_hidden_layers", num_hidden_layers, "layers");
    field("num_attention_heads", num_attention_heads, "heads");
    field("mlp_ratio", mlp_ratio, "F / C");
    field("image_size", image_size, "side of the images of pre-training");
    field("patch_size", patch_size, "side of a patch");
    field("num_channels", num_channels, "channels of an image");
    field("hidden_act", hidden_act, "activation of the feed-forward layers");
    field("layer_norm_eps", layer_norm_eps, "epsilon of the norms");
    field("hidden_dropout_prob", hidden_dropout_prob, "dropout after embeddings");
    field("attention_probs_dropout_prob", attention_probs_dropout_prob, "dropout on attention weights");
    field("drop_path_rate", drop_path_rate, "drop path, the same in every layer");
    field("qkv_bias", qkv_bias, "biases of query, key and value");
    field("use_swiglu_ffn", use_swiglu_ffn, "gated feed-forward layers");
    field("use_mask_token", use_mask_token, "whether the file holds one");
  }
};

std::shared_ptr<Model> create(const Json& json, const Task& task) {
  const auto c = read_config<Dinov2Config>(json);
  VisionOptions o;
  o.hidden_size = c.hidden_size;
  o.num_layers = c.num_hidden_layers;
  o.num_heads = c.num_attention_heads;
  o.intermediate_size = c.hidden_size * c.mlp_ratio;
  if (c.use_swiglu_ffn) o.intermediate_size = (o.intermediate_size * 2 / 3 + 7) / 8 * 8;
  o.image_size = c.image_size;
  o.patch_size = c.patch_size;
  o.num_channels = c.num_channels;
  o.hidden_act = c.hidden_act;
  o.layer_norm_eps = c.layer_norm_eps;
  o.qkv_bias = c.qkv_bias;
  o.has_mask_token = c.use_mask_token;
  o.layer_scale = true;
  o.swiglu = c.use_swiglu_ffn;
  o.hidden_dropout = o.position_dropout = c.hidden_dropout_prob;
  o.attention_dropout = c.attention_probs_dropout_prob;
  o.drop_path.assign(c.num_hidden_layers, c.drop_path_rate);
  auto names = VisionNames::transformers("dinov2", true);
  if (c.use_swiglu_ffn) names.inner = "mlp.weights_in", names.outer = "mlp.weights_out";
  const auto model = std::make_shared<VisionTransformer>(names, o);
  if (task.kind == "masked_image") {
    pretrain(*model, json, DecoderNames::transformers());
    return model;
  }
  const bool features = task.kind == "features";
  const ImageHeadOptions head{.pooling = features ? Pooling::first : Pooling::first_and_patches,
                              .width = c.hidden_size,
                              .classifier = "classifier"};
  model->head = features ? image_features(head) : image_classifier(head, task.num_labels);
  return model;
}

std::string class_name(const Task& task) {
  if (task.kind == "features" || task.kind == "masked_image") return "Dinov2Model";  // it has no class with a decoder
  return task.num_labels > 0 && task.kind != "tokens" ? "Dinov2ForImageClassification" : "";
}

}  // namespace

Architecture dinov2() {
  return {.model_type = "dinov2",
          .prefix = "dinov2",
          .create = create,
          .class_name = class_name,
          .rules = {drop("classifier."), drop("dinov2.embeddings.mask_token"), drop("decoder.")},
          .language_task = "masked_image"};
}

}  // namespace graft::models
