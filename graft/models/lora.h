// Low-rank adapters: a linear layer keeps its weight W and learns (alpha / rank) B A beside it.
// Paper:   Hu et al. 2021, https://arxiv.org/abs/2106.09685
// Source:  PEFT's LoraLayer (initialisation, names in files, adapter_config.json).
// Shapes:  N rows; A (rank, in), B (out, rank).
#pragma once

#include "graft/io/tensor_view.h"
#include "graft/models/lora_options.h"
#include "graft/models/model.h"

namespace graft::models {

/// Gives the chosen linear layers adapters, and with them what trains: the adapters of a block are a group of their own
/// ("layer 3 adapters") in the place of the block's, so all phases and boundaries are as before and the weights rest.
/// A is drawn with `seed`, B is 0, so the model computes what it did. Returns the paths of the layers. An untied language
/// head is a layer too, if a target names it: its adapter learns with the head, and its matrix rests. With `head` freeze
/// the matrices of the head, but for those that are `fresh` (keys), belong to no group that trains.
/// Throws Kind::usage for a target that matches nothing, listing what exists.
std::vector<std::string> attach_lora(Model& model, const LoraOptions& options, uint64_t seed,
                                     const std::vector<std::string>& fresh = {});

/// Adds each adapter to its weight and empties it: without_adapters() then is the whole model.
void merge_lora(Model& model);

/// While it lives the model computes what its weights alone do: a source that needs no second copy.
class WithoutAdapters {
 public:
  explicit WithoutAdapters(Model& model);
  ~WithoutAdapters();
  WithoutAdapters(const WithoutAdapters&) = delete;
  WithoutAdapters& operator=(const WithoutAdapters&) = delete;

 private:
  Model& model_;
};

bool has_adapters(const Model& model);

/// Parameters and buffers by key, adapters left out.
std::map<std::string, Tensor> without_adapters(const Model& model);

/// adapter_model.safetensors as PEFT names its tensors: adapters, and what learns of the head under its own names.
std::map<std::string, Tensor> peft_tensors(const Model& model);
/// adapter_config.json.
Json peft_config(const Model& model, const LoraOptions& options, const Task& task, const std::string& base);

/// Adds a PEFT folder's adapters to the model's weights and takes its whole modules, those of which the key begins with
/// `prefix`; returns their keys. Throws Kind::model naming the folder for a kind of adapter that graft does not compute,
/// and for tensors that fit no layer.
std::vector<std::string> apply_peft(Model& model, const Json& adapter_config, const io::TensorMap& tensors,
                                    const std::string& prefix, const std::string& where);

}  // namespace graft::models
