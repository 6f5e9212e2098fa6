// `graft cache`: what stores of activations a folder holds, whether they are intact, and which may go.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "graft/core/json.h"

namespace graft::features {

namespace fs = std::filesystem;

struct StoreEntry {
  fs::path file;
  uint64_t bytes = 0;
  double idle_days = 0;  // since it was made or last read
  Json made_of;          // source, chain, boundary, block, blocks, precision, examples; null when it cannot be read
  std::string damage;    // "" when intact, or when nobody looked
};

/// The stores of a run's folder (RUN/features) or of a folder that runs share (features.folder), most recently used
/// first. `verify`: reads every byte. Throws Kind::usage when the folder is neither.
std::vector<StoreEntry> stores_in(const fs::path& folder, bool verify);

struct PruneRules {
  bool damaged = false;               // those whose bytes are not what was written
  std::optional<double> idle_days;    // unused for longer
  std::optional<uint64_t> max_bytes;  // the least recently used go until the rest is no larger
};

/// Which of `entries` (as stores_in() orders them) the rules send away.
std::vector<StoreEntry> to_prune(const std::vector<StoreEntry>& entries, const PruneRules& rules);

}  // namespace graft::features
