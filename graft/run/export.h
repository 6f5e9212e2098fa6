// model/: what the ecosystem's own library saves. transformers loads it, head included, and computes the same logits.
#pragma once

#include <map>

#include "graft/models/lora_options.h"
#include "graft/models/source.h"

namespace graft::run {

struct ModelCard {
  std::string base_model;
  std::string task;
  bool of_images = false;
  Json result;  // of the run: phases, verdict, test metrics
};

/// Writes weights, config.json, `files` (tokenizer, preprocessing; name and content) and README.md beside each other into a temporary folder, then renames it to
/// `folder`. An older folder of that name is replaced only then. Returns the SHA-256 of the file of weights.
/// Weights kept in bfloat16 (train.weights) are written so, with all others, and config.json says it.
/// With `adapters` the weights are what PEFT saves, adapter_model.safetensors and adapter_config.json, for a base model in
/// the source's folder; without, model.safetensors has the whole model, adapters (merged before) left out.
std::string export_model(const std::filesystem::path& folder, const models::Source& source, const models::Model& model,
                         const models::Task& task, const std::vector<std::string>& label_names,
                         const std::map<std::string, std::string>& files, const ModelCard& card,
                         const models::LoraOptions* adapters = nullptr);

}  // namespace graft::run
