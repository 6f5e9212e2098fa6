// PyTorch archives (.bin, .pt, .pth), in the zip encoding and the older stream, read as data only.
// A fixed allow-list of pickle globals builds dictionaries, lists, numbers and tensors; anything else is refused.
#pragma once

#include "graft/core/json.h"
#include "graft/io/file.h"
#include "graft/io/tensor_view.h"

namespace graft::io {

struct TorchArchive {
  /// Keys of the outermost dictionary that hold a dictionary themselves ("state_dict", "optimizer"), in the file's order.
  std::vector<std::string> sections;
  /// Tensors of nested dictionaries by their dotted path ("state_dict.module.conv1.weight"): the keys joined with ".".
  TensorMap tensors;
  /// What is not a tensor, by the same paths: numbers, strings, booleans; for messages and configurations.
  Json others;
};

/// Throws Kind::model: not an archive, truncated, a pickle that names anything outside the allow-list
/// (the message says that it wants to run code and which global), compressed records, storage too small for a view.
TorchArchive read_torch_archive(const fs::path& path);

}  // namespace graft::io
