// ViT-MAE: a ViT pre-trained by giving back masked patches. Without its decoder it is a ViT, and for a task that has
// labels graft writes it as one.
// Paper:    He et al. 2022, https://arxiv.org/abs/2111.06377
// Weights:  transformers `vit_mae`, with and without the decoder (decoder.*, also as version 5 names its layers).
// Parity:   tests/parity/vit-mae-*, transformers 5.17: outputs and gradients (tests/models/parity_test.cpp).
// Differs:  patches are masked where the slot "noise" is given and nowhere else; the reference's ViTMAEModel always masks.
#include "graft/models/architectures.h"
#include "graft/models/config.h"
#include "graft/models/image_heads.h"
#include "graft/models/mae_decoder.h"

namespace graft::models {
namespace {

/// last_hidden_state of the patches that were seen, and which those are.
struct SeenFeatures final : Head {
  Reads reads() const override { return {Reads::Where::all}; }
  Outputs forward(const std::map<std::string, Activations>& ends) override {
    const auto& end = ends.at("image");
    Outputs outputs{{"last_hidden_state", end.hidden.values}};
    if (const auto found = end.kept.find("ids_restore"); found != end.kept.end()) {
      const auto seen = end.hidden.lengths.front() - 1;
      outputs["ids_restore"] = found->second.values;
      outputs["mask"] = (found->second.values >= seen).to(torch::kFloat32);
    }
    return outputs;
  }
};

bool of_pretraining(const Task& task) { return task.kind == "masked_image" || task.kind == "features"; }

std::shared_ptr<Model> create(const Json& json, const Task& task) {
  auto o = transformers_vit_options(json);
  const auto names = VisionNames::transformers("vit", false);
  if (!of_pretraining(task)) {
    const auto model = std::make_shared<VisionTransformer>(names, o);
    model->head = image_classifier({.pooling = Pooling::first, .width = o.hidden_size, .classifier = "classifier"},
                                   task.num_labels);
    return model;
  }
  o.positions_train = false;  // sin-cos, in the file
  o.position_dropout = 0;
  const auto config = read_config<MaskedImageConfig>(json);
  const auto model = std::make_shared<VisionTransformer>(names, o);
  model->mask_patches(config.mask_ratio);
  if (task.kind == "masked_image") model->head = std::make_shared<MaskedImageHead>(config, o);
  else model->head = std::make_shared<SeenFeatures>();
  return model;
}

std::string class_name(const Task& task) {
  if (task.kind == "features") return "ViTMAEModel";
  if (task.kind == "masked_image") return "ViTMAEForPreTraining";
  return task.num_labels > 0 && task.kind != "tokens" ? "ViTForImageClassification" : "";
}

std::string model_type_for(const Task& task) { return of_pretraining(task) ? "vit_mae" : "vit"; }

}  // namespace

Architecture vit_mae() {
  return {.model_type = "vit_mae",
          .prefix = "vit",
          .create = create,
          .class_name = class_name,
          .rules = {rename("decoder.decoder_encoder.layer.", "decoder.decoder_layers."), drop("decoder."),
                    drop("classifier."), drop("vit.pooler.")},
          .language_task = "masked_image",
          .model_type_for = model_type_for};
}

}  // namespace graft::models
