// Checkpoints that are there completely or not at all: NNNNNN/ with its files, manifest.json (size and SHA-256 of each,
// and the caller's state) and the marker COMMITTED, which is written last and holds the manifest's own SHA-256.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "graft/core/json.h"
#include "graft/io/file.h"
#include "graft/io/tensor_view.h"

namespace graft::io {

/// What a file will hold: bytes, or tensors in the safetensors format.
using Content = std::variant<std::string, TensorMap>;

struct CommittedFolder {
  uint64_t index = 0;
  fs::path path;
  Json state;
};

class CommittedFolders {
 public:
  /// `folder` is made by the first write().
  explicit CommittedFolders(fs::path folder, size_t keep = 2) : folder_(std::move(folder)), keep_(keep) {}

  /// Durable when it returns; then older folders go, but for the newest `keep`. A folder of the same index, left broken,
  /// is replaced. After a kill at any point latest() gives this or the one before. Throws Kind::disk.
  fs::path write(uint64_t index, const std::map<std::string, Content>& files, const Json& state);

  struct Latest {
    std::optional<CommittedFolder> found;
    std::vector<std::string> skipped;  // a sentence for each newer folder that is not complete
  };
  /// The newest folder whose marker, manifest, sizes and hashes agree.
  Latest latest() const;

  /// Removes what killed processes left.
  void sweep();

 private:
  void remove_older(uint64_t newest);

  fs::path folder_;
  size_t keep_;
};

}  // namespace graft::io
