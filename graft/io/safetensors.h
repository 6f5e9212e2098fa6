// safetensors: 8 bytes header size, JSON header, data. https://github.com/huggingface/safetensors#format
// Written and read as data only; every offset is checked against the file before a byte is used.
#pragma once

#include <map>
#include <string>

#include "graft/io/file.h"
#include "graft/io/tensor_view.h"

namespace graft::io {

struct SafetensorsFile {
  TensorMap tensors;
  std::map<std::string, std::string> metadata;
  std::shared_ptr<const MappedFile> file;  // in which `tensors` lie, each with bytes of its own
};

/// Maps the file. Throws Kind::model naming the file and the tensor: truncated, header too large or not JSON,
/// unknown type, shape and offsets that disagree, overlapping or out-of-range offsets, holes.
SafetensorsFile read_safetensors(const fs::path& path);

/// Row-major tensors only, ordered and padded as the reference writer does: wide types first, then names. Durable and atomic.
/// `metadata` gets {"format": "pt"} when it is empty (older transformers want it). Returns the SHA-256 of the file.
std::string write_safetensors(const fs::path& path, const TensorMap& tensors,
                              std::map<std::string, std::string> metadata = {});

}  // namespace graft::io
