#include "graft/models/source.h"

#include "graft/core/error.h"
#include "graft/models/device.h"
#include "graft/models/lora.h"
#include "graft/models/weight_type.h"
#include "graft/nn/fresh.h"

namespace graft::models {
namespace {

/// timm's EfficientNets have the same tensors whether they pad and normalise as TensorFlow or not; their files are named
/// after their architecture ("tf_efficientnet_b0_ns-c0e6a31c.pth").
Json config_of_bare_efficientnet(const io::Checkpoint& checkpoint) {
  const auto file = checkpoint.files.back();
  const auto name = file.stem().string();
  const bool tensorflow = name.starts_with("tf_efficientnet");
  GRAFT_CHECK(model, tensorflow || name.starts_with("efficientnet"),
              "{}: is an EfficientNet in timm's names, and nothing in it tells whether it is an efficientnet_b* or a "
              "tf_efficientnet_b*, which pad and normalise differently. Write a config.json beside it, such as "
              "{{\"architecture\": \"efficientnet_b0\"}}.",
              file.string());
  return {{"model_type", "efficientnet"}, {"layout", tensorflow ? "timm_tf" : "timm"}};
}

/// A configuration for weights that come without one, told by their names; empty when they are not known. `layout` is
/// whose code gave them their names.
Json config_of_bare(const io::Checkpoint& checkpoint) {
  const auto has = [&](const char* key) { return checkpoint.tensors.contains(key); };
  const auto bare = [](const char* family, const char* layout) {
    return Json{{"model_type", family}, {"layout", layout}};
  };
  if (has("layer1.0.conv1.weight")) return bare("resnet", "torchvision");  // and training scripts of its kind
  if (has("features.0.0.weight") && has("features.1.0.block.0.0.weight")) return bare("efficientnet", "torchvision");
  if (has("conv_stem.weight") && has("blocks.0.0.conv_dw.weight")) return config_of_bare_efficientnet(checkpoint);
  if (has("features.1.0.attn.relative_position_bias_table")) return bare("swin", "torchvision");
  if (has("layers.0.blocks.0.attn.relative_position_bias_table"))
    return bare("swin", has("layers.0.downsample.reduction.weight") ? "authors" : "timm");
  if (has("conv_proj.weight") && has("encoder.pos_embedding")) return bare("vit", "torchvision");
  if (has("patch_embed.proj.weight") && has("pos_embed") && has("blocks.0.norm1.weight")) {
    if (has("decoder_blocks.0.norm1.weight")) return bare("vit", "mae");
    if (has("mask_token") && has("blocks.0.ls1.gamma")) return bare("vit", "dinov2");
    return bare("vit", has("head.mlp.0.weight") ? "dino" : "timm");
  }
  return Json::object();
}

/// Keys as this architecture calls them, then what only the tensors tell.
void describe(Source& source) {
  if (source.architecture->key_here) source.checkpoint.rename(source.architecture->key_here);
  if (source.architecture->describe)
    source.config = source.architecture->describe(source.config, source.checkpoint.tensors);
}

}  // namespace

Source Source::open(const std::filesystem::path& folder) {
  GRAFT_CHECK(model, std::filesystem::exists(folder),
              "{}: there is no such model folder. Give the folder that holds config.json and the weights.",
              folder.string());
  Json adapter_config;
  auto base = folder;
  if (std::filesystem::exists(folder / "adapter_config.json") &&
      !std::filesystem::exists(folder / "model.safetensors")) {
    adapter_config = Json::parse(io::read_file(folder / "adapter_config.json"), nullptr, false);
    GRAFT_CHECK(model, adapter_config.is_object(),
                "{}: adapter_config.json is not a JSON object. Save the adapter again.", folder.string());
    base = adapter_config.value("base_model_name_or_path", std::string());
    GRAFT_CHECK(model, std::filesystem::exists(base),
                "{}: is an adapter for `{}`, and there is no such folder. Put the base model there, or name its folder "
                "as base_model_name_or_path in adapter_config.json.",
                folder.string(), base.string());
  }
  // What transformers and timm write, else what graft writes for an ecosystem without configurations.
  auto config_path = folder / (std::filesystem::exists(folder / "config.json") ? "config.json" : "graft.json");
  if (!adapter_config.is_null() && !std::filesystem::exists(config_path)) config_path = base / "config.json";
  Source source;
  source.folder = folder;
  source.name = folder.filename().string();
  if (!std::filesystem::exists(config_path)) {
    source.checkpoint = io::read_checkpoint(base);
    source.config = config_of_bare(source.checkpoint);
    GRAFT_CHECK(model, !source.config.empty(),
                "{}: has no config.json. Give the folder of a model as transformers saves it.", folder.string());
    source.architecture = &find_architecture(source.config);
    describe(source);
    return source;
  }
  try {
    source.config = Json::parse(io::read_file(config_path));
  } catch (const Json::parse_error& e) {
    fail(Kind::model, "{}: is not JSON ({}). Download the model again.", config_path.string(), e.what());
  }
  GRAFT_CHECK(model, source.config.is_object(), "{}: is not a JSON object. Download the model again.",
              config_path.string());
  if (config_path.filename() == "graft.json") {
    source.checkpoint = io::read_checkpoint(base);
    if (!source.config.contains("layout")) {  // what it leaves out is told by the tensors, as where there is none
      auto told = config_of_bare(source.checkpoint);
      told.update(source.config);
      source.config = told;
    }
    source.architecture = &find_architecture(source.config);
  } else {
    source.architecture = &find_architecture(source.config);
    source.checkpoint = io::read_checkpoint(base);
  }
  describe(source);
  source.adapter_config = adapter_config;
  if (!adapter_config.is_null()) source.adapter = io::read_checkpoint(folder / "adapter_model.safetensors").tensors;
  return source;
}

std::string Source::description(const Model& model) const {
  int64_t count = 0;
  for (const auto& item : model.parameters_by_key()) count += item.value().numel();
  return fmt::format("{} ({}, {} blocks, {:.1f} M parameters)", name, architecture->model_type,
                     model.chains.front().blocks.size(), static_cast<double>(count) / 1e6);
}

namespace {

std::shared_ptr<Model> create(const Source& source, const Task& task) {
  auto model = source.architecture->create(source.config, task);
  model->name = source.folder.filename().string();
  model->configuration = source.config.dump();
  return model;
}

}  // namespace

Loaded load(const Source& source, const Task& task, uint64_t seed, bool keep_head, torch::Dtype weights) {
  torch::manual_seed(seed);
  Loaded loaded;
  {
    nn::PutOff values;  // what the file has is never drawn
    loaded.model = create(source, task);
    keep_weights_as(*loaded.model, weights, false);
    loaded.report = load_weights(*loaded.model, *source.architecture, source.checkpoint.tensors, source.folder.string(),
                                 true, keep_head, source.checkpoint.mapped);
    auto parameters = loaded.model->parameters_by_key();
    for (const auto& key : loaded.report.fresh)
      if (const auto* parameter = parameters.find(key)) values.draw(*parameter);
  }
  if (!source.adapter_config.is_null()) {
    const auto prefix = keep_head ? std::string() : source.architecture->prefix + ".";
    for (const auto& key :
         apply_peft(*loaded.model, source.adapter_config, source.adapter, prefix, source.folder.string())) {
      std::erase(loaded.report.fresh, key);
      loaded.report.key_in_file[key] = key;
    }
  }
  put_on_device(*loaded.model);
  return loaded;
}

std::shared_ptr<Model> random_copy(const Source& source, const Task& task, uint64_t seed, torch::Dtype weights) {
  torch::manual_seed(seed);
  nn::PutOff values;
  auto copy = create(source, task);
  keep_weights_as(*copy, weights, false);
  for (const auto& items : {copy->parameters_by_key(), copy->buffers_by_key()})
    for (const auto& item : items) values.draw(item.value());
  put_on_device(*copy);
  copy->name += ", random weights";
  return copy;
}

Task task_of(const Json& config, const Architecture& architecture) {
  const auto names = config.value("architectures", std::vector<std::string>{});
  if (names.empty() && config.contains("num_classes") && config["num_classes"].is_number_integer()) {  // timm, bare
    const auto classes = config["num_classes"].get<int64_t>();
    if (classes <= 0) return {config.contains("decoder_hidden_size") ? architecture.language_task : "features"};
    const auto problem = config.value("problem_type", std::string());
    return {problem == "multi_label_classification" ? "multilabel"
            : problem == "regression"               ? "regression"
                                                    : "classification",
            classes};
  }
  const auto labels = config.contains("id2label") ? static_cast<int64_t>(config["id2label"].size()) : 2;
  for (const auto& name : names) {
    if (name == architecture.class_name({"features"})) return {"features"};
    if (name == architecture.class_name({architecture.language_task})) return {architecture.language_task};
    if (name == architecture.class_name({"tokens", labels})) return {"tokens", labels};
    if (name == architecture.class_name({"classification", labels})) {
      const auto problem = config.contains("problem_type") && config["problem_type"].is_string()
                               ? config["problem_type"].get<std::string>()
                               : std::string();
      if (problem == "multi_label_classification") return {"multilabel", labels};
      if (problem == "regression" || (problem.empty() && labels == 1)) return {"regression", labels};
      return {"classification", labels};
    }
  }
  return {"features"};
}

std::vector<std::string> label_names(const Json& config) {
  std::vector<std::string> names;
  if (config.contains("label_names") && config["label_names"].is_array())  // timm
    return config["label_names"].get<std::vector<std::string>>();
  if (!config.contains("id2label") || !config["id2label"].is_object()) return names;
  names.resize(config["id2label"].size());
  for (const auto& item : config["id2label"].items()) {
    const auto id = std::strtoll(item.key().c_str(), nullptr, 10);
    GRAFT_CHECK(model, id >= 0 && id < static_cast<int64_t>(names.size()) && item.value().is_string(),
                "config.json: id2label is not a list of names by 0, 1, 2, ...; correct it.");
    names[id] = item.value().get<std::string>();
  }
  return names;
}

}  // namespace graft::models
