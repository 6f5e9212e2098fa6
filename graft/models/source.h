// A pretrained model's folder: configuration, family and weights.
#pragma once

#include "graft/models/loading.h"

namespace graft::models {

struct Source {
  std::filesystem::path folder;
  std::string name;  // for people: the folder's, or the one on the hub
  Json config;
  const Architecture* architecture = nullptr;
  io::Checkpoint checkpoint;
  /// Where the folder is a PEFT adapter: its settings and tensors; `checkpoint` then is its base model's.
  Json adapter_config;
  io::TensorMap adapter;

  /// A folder with adapter_config.json and no weights of its own is opened with its base model.
  /// Throws Kind::model: no such folder, no config.json, an unknown family, no weights, a damaged file.
  static Source open(const std::filesystem::path& folder);

  /// "BERT, 6 layers, 22.6 M parameters" for people.
  std::string description(const Model& model) const;
};

struct Loaded {
  std::shared_ptr<Model> model;
  LoadReport report;
};

/// The source with a head for `task`: its own where the file has one of the right shape (and `keep_head`), else fresh,
/// drawn with `seed`. `weights`: as keep_weights_as(); a file of that type is mapped.
Loaded load(const Source& source, const Task& task, uint64_t seed, bool keep_head = true,
            torch::Dtype weights = torch::kFloat32);

/// The same architecture with random weights, for the verdict on the features.
std::shared_ptr<Model> random_copy(const Source& source, const Task& task, uint64_t seed,
                                   torch::Dtype weights = torch::kFloat32);

/// What config.json says the head is for: by `architectures`, `problem_type` and `id2label`.
Task task_of(const Json& config, const Architecture& architecture);
/// Names by index from `id2label`; empty when there are none.
std::vector<std::string> label_names(const Json& config);

}  // namespace graft::models
