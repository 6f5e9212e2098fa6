#include "graft/models/timm.h"

namespace graft::models {

std::string timm_family(const std::string& name) {
  if (name.starts_with("vit_")) return "vit";
  if (name.starts_with("swin_") && !name.starts_with("swin_s3")) return "swin";
  for (const auto* start : {"efficientnet_b", "tf_efficientnet_b"})
    if (name.starts_with(start)) return "efficientnet";
  for (const auto* start : {"resnet", "resnext", "wide_resnet", "tv_resnet", "gluon_resnet"})
    if (name.starts_with(start)) return "resnet";
  return "";
}

int64_t timm_image_size(const Json& config) {
  const auto side = [](const Json& size) -> int64_t {
    if (size.is_number_integer()) return size.get<int64_t>();
    return size.is_array() && !size.empty() && size.back().is_number_integer() ? size.back().get<int64_t>() : 0;
  };
  for (const auto& [section, key] : {std::pair{"model_args", "img_size"}, std::pair{"pretrained_cfg", "input_size"}})
    if (config.contains(section) && config[section].is_object() && config[section].contains(key))
      if (const auto found = side(config[section][key]); found > 0) return found;
  return 224;
}

Json timm_config_with_labels(Json config, int64_t num_labels, const std::vector<std::string>& label_names) {
  config["num_classes"] = num_labels;
  for (const auto* section : {"model_args", "pretrained_cfg"})
    if (config.contains(section) && config[section].is_object() && config[section].contains("num_classes"))
      config[section]["num_classes"] = num_labels;
  for (const auto* key : {"label_names", "label_descriptions"}) config.erase(key);
  if (!label_names.empty()) config["label_names"] = label_names;
  return config;
}

}  // namespace graft::models
