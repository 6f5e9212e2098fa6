// A model folder's weights, whichever of the published layouts it has.
#pragma once

#include "graft/io/file.h"
#include "graft/io/tensor_view.h"

namespace graft::io {

struct Checkpoint {
  TensorMap tensors;
  std::vector<fs::path> files;  // in the order read; an index first
  bool safe = true;             // from safetensors, not from a PyTorch archive
  std::vector<std::shared_ptr<const MappedFile>> mapped;  // the safetensors files, in which each tensor has bytes of its own
};

/// `path`: a folder (model.safetensors, model.safetensors.index.json and its shards, pytorch_model.bin,
/// pytorch_model.bin.index.json, else the only *.safetensors, *.bin, *.pt, *.pth or *.th of the folder)
/// or one weight file or index. In archives the outer dictionary "state_dict", else "model_state_dict", else "model"
/// is unwrapped and what stands beside it (an optimizer) left out; names that only begin so are kept.
/// Throws Kind::model: nothing found (lists what the folder has), a shard missing from the index or from the disk,
/// a tensor in two shards. Values are not looked at here (see models/loading).
Checkpoint read_checkpoint(const fs::path& path);

/// SHA-256 over names and contents of the files, in order of name.
std::string checkpoint_hash(const Checkpoint& checkpoint);

}  // namespace graft::io
