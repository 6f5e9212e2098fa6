// config.json as timm writes it: `architecture`, `model_args`, `pretrained_cfg`; no model_type.
#pragma once

#include <initializer_list>
#include <string>
#include <vector>

#include "graft/core/json.h"

namespace graft::models {

inline bool is_timm(const Json& config) {
  return config.contains("architecture") && config["architecture"].is_string() && !config.contains("model_type");
}

/// "vit", "swin", "resnet", "efficientnet": graft's family of a timm architecture; "" when it has none, also where tensors
/// would fit and the computation is another (anti-aliased pooling, relative positions).
std::string timm_family(const std::string& architecture);

/// Side of the images: `model_args.img_size`, else `pretrained_cfg.input_size`, else 224.
int64_t timm_image_size(const Json& config);

/// Throws Kind::model where `model_args` sets one of these to anything but null, false, "" or 0: arguments that change the
/// computation and leave no trace in the tensors.
void refuse_timm_arguments(const Json& config, std::initializer_list<const char*> names);

/// The configuration for a head with these labels, in timm's terms (num_classes, label_names).
Json timm_config_with_labels(Json config, int64_t num_labels, const std::vector<std::string>& label_names);

}  // namespace graft::models
