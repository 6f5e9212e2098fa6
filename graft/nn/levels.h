// Placing layers under the dotted keys of a checkpoint: "vit.encoder.layer.0.layernorm_before".
// The levels in between become modules of their own, as in the reference's tree, so that freezing acts on them too.
#pragma once

#include <torch/nn/module.h>

#include <memory>
#include <string>
#include <utility>

namespace graft::nn {

/// The module at `path` below `root`, made where it is not there; `root` itself for "".
inline torch::nn::Module& level(torch::nn::Module& root, const std::string& path) {
  if (path.empty()) return root;
  const auto dot = path.find('.');
  const auto name = path.substr(0, dot);
  for (auto& child : root.named_children())
    if (child.key() == name) return level(*child.value(), dot == std::string::npos ? "" : path.substr(dot + 1));
  const auto made = root.register_module(name, std::make_shared<torch::nn::Module>());
  return level(*made, dot == std::string::npos ? "" : path.substr(dot + 1));
}

/// "a.b" and "c" of "a.b.c".
inline std::pair<std::string, std::string> split_key(const std::string& key) {
  const auto dot = key.rfind('.');
  return dot == std::string::npos ? std::pair{std::string(), key} : std::pair{key.substr(0, dot), key.substr(dot + 1)};
}

/// Registers a layer under a dotted key.
template <class Holder>
Holder place(torch::nn::Module& root, const std::string& key, Holder holder) {
  const auto [parent, name] = split_key(key);
  return level(root, parent).register_module(name, std::move(holder));
}

inline torch::Tensor place_parameter(torch::nn::Module& root, const std::string& key, torch::Tensor value) {
  const auto [parent, name] = split_key(key);
  return level(root, parent).register_parameter(name, std::move(value));
}

/// For what a file holds and no optimizer trains.
inline torch::Tensor place_buffer(torch::nn::Module& root, const std::string& key, torch::Tensor value) {
  const auto [parent, name] = split_key(key);
  return level(root, parent).register_buffer(name, std::move(value));
}

}  // namespace graft::nn
