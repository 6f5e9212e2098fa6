// A model folder's weights, whichever of the published layouts it has.
#pragma once

#include <functional>
#include <map>
#include <string>

#include "graft/io/file.h"
#include "graft/io/tensor_view.h"

namespace graft::io {

struct Checkpoint {
  TensorMap tensors;
  std::vector<fs::path> files;  // in the order read; an index first
  bool safe = true;             // from safetensors, not from a PyTorch archive
  std::vector<std::shared_ptr<const MappedFile>>
      mapped;  // the safetensors files, in which each tensor has bytes of its own
  /// What stood before every key and was taken off: "module." of DataParallel, "_orig_mod." of torch.compile.
  std::string wrapper;
  std::map<std::string, std::string> names;  // key -> the file's own, where they differ

  /// The file's own name of a key; one that it does not have as its others are named.
  std::string name_in_file(const std::string& key) const;
  /// Gives tensors other keys; `names` remembers the file's.
  void rename(const std::function<std::string(const std::string&)>& renamed);
};

/// `path`: a folder (model.safetensors, model.safetensors.index.json and its shards, pytorch_model.bin,
/// pytorch_model.bin.index.json, else the only *.safetensors, *.bin, *.pt, *.pth or *.th of the folder)
/// or one weight file or index. In archives the outer dictionary "state_dict", else "model_state_dict", else "model",
/// else "teacher" is unwrapped, and a "state_dict" in it; what stands beside it (an optimizer, the student) is left out;
/// names that only begin so are kept. "module." and "_orig_mod." before all keys, and "backbone." before those of the
/// network, are taken off (`names` has them).
/// Throws Kind::model: nothing found (lists what the folder has), a shard missing from the index or from the disk,
/// a tensor in two shards. Values are not looked at here (see models/loading).
Checkpoint read_checkpoint(const fs::path& path);

/// SHA-256 over names and contents of the files, in order of name.
std::string checkpoint_hash(const Checkpoint& checkpoint);

}  // namespace graft::io
