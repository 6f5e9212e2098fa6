#include "graft/models/timm.h"

#include <regex>
#include <utility>

#include "graft/core/error.h"

namespace graft::models {

std::string timm_family(const std::string& name) {
  // Relatives with the same names of tensors and another computation (resnetblur*, resnetaa*, vit_relpos_*, swin_s3_*)
  // would load without a word, so only what is known is let in. vit.cpp looks closer at its own.
  static const std::pair<const char*, std::regex> kFamilies[] = {
      {"resnet", std::regex(R"((tv_|gluon_|wide_|ssl_|swsl_|ig_)?resne(xt|t)\d+[tcsd]?(_\d+x\d+d|_2|_v1[bcds])?)")},
      {"efficientnet", std::regex(R"(efficientnet_b\d(_pruned)?|tf_efficientnet_b\d(_ap|_ns)?)")},
      {"swin", std::regex(R"(swin_(tiny|small|base|large)_patch\d+_window\d+_\d+(_in22k|_in22ft1k)?)")},
      {"vit", std::regex(R"(vit_(?!relpos_|srelpos_|pe_).*)")}};
  const auto architecture = name.substr(0, name.find('.'));  // without the tag of the weights
  for (const auto& [family, pattern] : kFamilies)
    if (std::regex_match(architecture, pattern)) return family;
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

void refuse_timm_arguments(const Json& config, std::initializer_list<const char*> names) {
  const auto arguments = config.value("model_args", Json::object());
  for (const auto* name : names) {
    if (!arguments.contains(name)) continue;
    const auto& value = arguments[name];
    const bool off = value.is_null() || value == Json(false) || value == Json("") || value == Json(0);
    GRAFT_CHECK(model, off, "config.json: model_args sets {} to {}, which graft does not compute for `{}`.", name,
                value.dump(), config["architecture"].get<std::string>());
  }
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
