#include "graft/run/export.h"

#include <algorithm>

#include "graft/core/error.h"
#include "graft/io/safetensors.h"
#include "graft/models/lora.h"
#include "graft/models/timm.h"

namespace graft::run {
namespace {

/// Of masked autoencoding; not written where the decoder is not.
constexpr const char* kObjective[] = {"mask_ratio",
                                      "norm_pix_loss",
                                      "decoder_hidden_size",
                                      "decoder_intermediate_size",
                                      "decoder_num_hidden_layers",
                                      "decoder_num_attention_heads"};

/// What safetensors then holds: one type for all, as config.json can name only one. Returns its name.
std::string unify_types(std::map<std::string, models::Tensor>& tensors, bool may_be_half) {
  const auto is_half = [](const auto& item) { return item.second.scalar_type() == torch::kBFloat16; };
  const bool half = may_be_half && std::any_of(tensors.begin(), tensors.end(), is_half);
  for (auto& item : tensors)
    if (item.second.is_floating_point())
      item.second = item.second.detach().to(half ? torch::kBFloat16 : torch::kFloat32);
  return half ? "bfloat16" : "float32";
}

bool is_bare(const models::Source& source) { return source.config.contains("layout"); }

/// transformers has a class with a decoder for ViT and none for DINOv2; of the others only the authors of MAE have one.
bool keeps_decoder(const models::Source& source) {
  if (is_bare(source) || models::is_timm(source.config)) return source.config.value("layout", std::string()) == "mae";
  const auto& architecture = *source.architecture;
  return architecture.class_name({"masked_image"}) != architecture.class_name({"features"});
}

Json config_of(const models::Source& source, const models::Task& task, const std::vector<std::string>& label_names,
               const std::string& type) {
  auto config = source.config;
  const bool told_by_tensors = models::is_timm(config) || is_bare(source);
  if (!keeps_decoder(source) || (told_by_tensors && task.kind != "masked_image"))
    for (const auto* key : kObjective) config.erase(key);
  // timm and bare checkpoints: what was read from shapes is left out, the labels are named as there.
  if (told_by_tensors) {
    config.erase(source.architecture->model_type);
    config = models::timm_config_with_labels(config, task.num_labels, label_names);
    if (task.kind == "multilabel") config["problem_type"] = "multi_label_classification";
    else if (task.kind == "regression") config["problem_type"] = "regression";
    else config.erase("problem_type");
    return config;
  }
  config["architectures"] = {source.architecture->class_name(task)};
  const auto& exported = source.architecture->exported_type;
  config["model_type"] = source.architecture->model_type_for ? source.architecture->model_type_for(task)
                         : exported.empty()                  ? source.architecture->model_type
                                                             : exported;
  config.erase("auto_map");  // the code of the source's repository is not needed
  for (const auto* key : {"dtype", "torch_dtype"}) config.erase(key);
  config["torch_dtype"] = type;
  for (const auto* key : {"id2label", "label2id", "problem_type", "_name_or_path"}) config.erase(key);
  if (task.num_labels == 0) return config;  // features, and what was pretrained for
  Json names = Json::object(), ids = Json::object();
  for (int64_t i = 0; i < task.num_labels; ++i) {
    const auto name = i < static_cast<int64_t>(label_names.size()) ? label_names[i] : "LABEL_" + std::to_string(i);
    names[std::to_string(i)] = name;
    ids[name] = i;
  }
  config["id2label"] = names;
  config["label2id"] = ids;
  if (task.kind != "tokens")
    config["problem_type"] = task.kind == "regression"   ? "regression"
                             : task.kind == "multilabel" ? "multi_label_classification"
                                                         : "single_label_classification";
  return config;
}

/// `library`: what loads the model ("transformers", "timm"); "" for weights that only their own code loads.
std::string card_text(const ModelCard& card, const std::vector<std::string>& label_names, const std::string& library) {
  std::string text = "---\n";
  if (!library.empty()) text += fmt::format("library_name: {}\n", library);
  text += fmt::format("base_model: {}\n", card.base_model);
  text += fmt::format("pipeline_tag: {}\n---\n\n", card.task == "masked_image" ? "image-feature-extraction"
                                                   : card.of_images            ? "image-classification"
                                                   : card.task == "tokens"     ? "token-classification"
                                                   : card.task == "masked_lm"  ? "fill-mask"
                                                   : card.task == "causal_lm"  ? "text-generation"
                                                                               : "text-classification");
  text += fmt::format("# {} for {}\n\nFine-tuned by graft from `{}`.\n", card.base_model, card.task, card.base_model);
  if (!label_names.empty()) text += "\nLabels: " + listed(label_names, 50) + ".\n";
  if (card.result.contains("verdict")) text += "\n" + card.result["verdict"]["sentence"].get<std::string>() + "\n";
  if (card.result.contains("phases") && !card.result["phases"].empty()) {
    text +=
        fmt::format("\n| phase | validation {} | gain |\n|---|---|---|\n", card.result["metric"].get<std::string>());
    for (const auto& phase : card.result["phases"])
      text += fmt::format("| {} | {:.4f} | {:+.4f} |\n", phase["phase"].get<std::string>(),
                          phase["validation"].get<double>(), phase["gain"].get<double>());
  }
  for (const auto* key : {"test", "held_out"}) {
    if (!card.result.contains(key)) continue;
    text += fmt::format("\n| {} | |\n|---|---|\n", key);
    for (const auto& item : card.result[key].items())
      if (item.value().is_number()) text += fmt::format("| {} | {:.4f} |\n", item.key(), item.value().get<double>());
  }
  return text;
}

}  // namespace

std::string export_model(const std::filesystem::path& folder, const models::Source& source, const models::Model& model,
                         const models::Task& task, const std::vector<std::string>& label_names,
                         const std::map<std::string, std::string>& files, const ModelCard& card,
                         const models::LoraOptions* adapters) {
  const auto making = io::temporary_beside(folder);
  io::remove_all(making);
  io::make_folder(making);
  auto tensors = adapters ? models::peft_tensors(model) : models::without_adapters(model);
  if (task.kind == "masked_image" && !keeps_decoder(source))
    std::erase_if(tensors, [](const auto& item) { return item.first.starts_with("decoder."); });
  const auto type = unify_types(tensors, /*may_be_half=*/!adapters);  // adapters are small, and learned in float32
  if (is_bare(source) && !adapters) {  // as the source's file names them: "module.conv1.weight"
    std::map<std::string, models::Tensor> named;
    for (auto& [key, tensor] : tensors) named[source.checkpoint.name_in_file(key)] = tensor;
    tensors = std::move(named);
  }
  const auto* weights = adapters ? "adapter_model.safetensors" : "model.safetensors";
  const auto hash = io::write_safetensors(making / weights, models::to_views(tensors));
  if (adapters) {
    const auto base = std::filesystem::absolute(source.folder).lexically_normal().string();
    io::write_file(making / "adapter_config.json", models::peft_config(model, *adapters, task, base).dump(2) + "\n");
  }
  const auto* library = models::is_timm(source.config) ? "timm"
                        : is_bare(source)              ? ""
                        : adapters                     ? "peft"
                                                       : "transformers";
  const auto* settings_name = source.config.contains("layout") ? "graft.json" : "config.json";
  io::write_file(making / settings_name, config_of(source, task, label_names, type).dump(2) + "\n");
  for (const auto& [name, content] : files) io::write_file(making / name, content);
  if (const auto settings = source.folder / "generation_config.json";
      task.kind == "causal_lm" && std::filesystem::exists(settings))
    io::write_file(making / "generation_config.json", io::read_file(settings));
  io::write_file(making / "README.md", card_text(card, label_names, library));
  io::remove_all(folder);
  io::rename_folder(making, folder);
  return hash;
}

}  // namespace graft::run
