#include "graft/models/architectures.h"

#include <algorithm>

#include "graft/core/error.h"
#include "graft/models/timm.h"

namespace graft::models {

const std::vector<Architecture>& architectures() {
  static const std::vector<Architecture> kTable{bert(),   roberta(),      deberta(),    deberta_v2(), cxr_bert(),
                                                llama(),  gpt_bigcode(),  starcoder2(), resnet(),     vit(),
                                                dinov2(), efficientnet(), swin(),       vit_mae(),    mlp()};
  return kTable;
}

const Architecture& find_architecture(const Json& config) {
  const auto type = is_timm(config) ? timm_family(config["architecture"]) : config.value("model_type", std::string());
  GRAFT_CHECK(model, !is_timm(config) || !type.empty(),
              "config.json: timm's `{}` is not an architecture that graft runs; known are vit_*, swin_*, resnet*, "
              "resnext* and efficientnet_b*, without their variants of another computation (resnetaa*, resnetblur*, "
              "resnetrs*, resnetv2_*, swin_s3_*, vit_relpos_*).",
              config["architecture"].get<std::string>());
  std::vector<std::string> known;
  for (const auto& row : architectures()) {
    if (row.model_type == type) return row;
    known.push_back(row.model_type);
  }
  // Old repositories (SciBERT) have no model_type; their `architectures` or nothing at all tells BERT.
  if (type.empty()) {
    for (const auto& name : config.value("architectures", std::vector<std::string>{}))
      for (const auto& row : architectures())
        for (const auto& kind :
             {std::string("features"), std::string("classification"), std::string("tokens"), row.language_task})
          if (row.class_name({kind, 1}) == name) return row;
    const bool looks_like_bert = config.contains("type_vocab_size") && config.contains("hidden_act") &&
                                 config.contains("intermediate_size") && !config.contains("relative_attention");
    if (looks_like_bert) return architectures().front();
  }
  fail(Kind::model, "config.json: the model type `{}` is not one that graft runs; known are {}.", type,
       listed(known, 40));
}

}  // namespace graft::models
