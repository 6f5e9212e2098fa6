// A store's file as bytes, without libtorch: what it holds, where the rows of an example are, whether they are intact.
//
// safetensors with "<part>" (rows, ...), "<part>.starts" (examples + 1), "<part>.checks" (examples): examples stand in
// their own order, so a batch of neighbours is one span. Metadata: chain, boundary, block, source, precision,
// examples, and "<part>.computed" where a part is as short as it was computed.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "graft/io/safetensors.h"

namespace graft::features {

namespace fs = std::filesystem;

/// XXH3 (64 bits): as fast as memory is read, so a store can be checked whenever it is opened.
uint64_t checksum(std::string_view bytes);

struct StoreFile {
  struct Part {
    std::vector<int64_t> starts;   // first row of each example, and the number of rows
    std::vector<uint64_t> checks;  // of each example's bytes
    const io::TensorView* view = nullptr;
    int64_t row_bytes = 0;

    std::string_view rows(int64_t example) const {
      return {view->data + starts[example] * row_bytes,
              static_cast<size_t>((starts[example + 1] - starts[example]) * row_bytes)};
    }
  };

  /// Maps a finished file. Throws Kind::data when its parts do not fit together.
  explicit StoreFile(const fs::path& path);
  StoreFile(StoreFile&&) = default;

  int64_t examples() const { return static_cast<int64_t>(parts.begin()->second.starts.size()) - 1; }
  /// Whether a part is bfloat16 because it was computed so, and not because it was rounded.
  bool computed_in_half(const std::string& part) const { return file.metadata.contains(part + ".computed"); }
  /// The first example whose bytes are not what was written, in words; nullopt when all are.
  std::optional<std::string> damage() const;

  io::SafetensorsFile file;
  std::map<std::string, Part> parts;  // "hidden", "kept.<slot>"
};

/// When a store was last used is its file's access time, set by graft itself: many file systems do not keep it.
void mark_used(const fs::path& store);
double days_unused(const fs::path& store);

}  // namespace graft::features
