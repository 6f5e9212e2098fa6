// Activations of every example of a split at one boundary of one chain, computed once and read back in every later epoch.
// A store is one file: rows of the hidden states and of the slots that cross the boundary, ragged, without padding.
// It appears whole or not at all, under a name that is a hash of all that its values depend on.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>

#include "graft/features/inputs.h"
#include "graft/features/options.h"
#include "graft/features/store_file.h"
#include "graft/models/model.h"

namespace graft::features {

class Store {
 public:
  /// Maps a finished file.
  explicit Store(const fs::path& file);
  /// The store of a split whose examples `of_part` (ascending) are those of `part`, the others those of `rest`.
  static Store joined(const Store& part, const std::vector<int64_t>& of_part, const Store& rest);
  /// The activations of these examples, in this order, on `device`; as float32, but under autocast what was computed in
  /// bfloat16 as that. Sorted examples are read fastest.
  models::Activations read(const std::vector<int64_t>& examples, torch::Device device) const;
  int64_t length(int64_t example) const;  // rows of the hidden states
  int64_t size() const;
  const fs::path& path() const { return path_; }
  /// Of a joined one both files.
  std::vector<fs::path> paths() const;

 private:
  /// The file that holds an example, and its place there.
  std::pair<const StoreFile*, int64_t> place(int64_t example) const;

  fs::path path_, rest_path_;
  std::shared_ptr<const StoreFile> file_, rest_;       // `rest_`: of a joined one, else null
  std::vector<std::pair<bool, int64_t>> places_ = {};  // of a joined one: whether in `rest_`, and where
};

/// What decides the values at any boundary: configuration, weights by group, inputs, precision, batch plan. Each is
/// hashed once; a store's name is the hash of those that lie before its boundary.
class PrefixHashes {
 public:
  PrefixHashes(const models::Model& model, const Inputs& inputs, const StoreOptions& options);
  /// `mean`: of the store that holds the mean over each example's rows alone.
  std::string key(const std::string& chain, int64_t boundary, const models::Reads& reads, bool mean = false) const;

 private:
  const models::Model& model_;
  std::string plan_;
  std::map<std::string, std::string> groups_;
};

/// Bytes that a store at this boundary takes, from lengths alone; a probe of one example tells the widths.
uint64_t store_bytes(models::Model& model, const std::string& chain, int64_t boundary, const Inputs& inputs,
                     const StoreOptions& options);

struct CaptureResult {
  std::vector<std::optional<Store>> stores;  // one a boundary; nullopt when over budget or off
  std::vector<std::optional<Store>> means;   // one for each of `means`, likewise
  std::vector<std::string> notes;            // why a boundary is absent, or was computed again
  double rounding = 0;                       // of the stored halves, relative to the largest value
  double seconds = 0;                        // 0 when all were there already
  int64_t computed = 0;                      // examples that went through the blocks now
};

/// Stores for all `boundaries` of a chain, in one pass over the inputs where files are missing.
/// The last boundary may be the chain's end; there only what `reads` names is stored.
/// `means`: boundaries before the end of which the mean over each example's rows is stored as well, (1, C) an example.
/// Frozen blocks run in evaluation mode without gradient. `progress(done, total)` in examples.
CaptureResult capture(models::Model& model, const std::string& chain, const std::vector<int64_t>& boundaries,
                      const models::Reads& reads, const Inputs& inputs, const fs::path& folder,
                      const StoreOptions& options, const std::function<void(int64_t, int64_t)>& progress = {},
                      const std::vector<int64_t>& means = {});

/// Examples in batches of at most `tokens` rows, sorted by length; a function of the lengths alone.
std::vector<std::vector<int64_t>> batches_by_length(const Inputs& inputs, int64_t tokens);

}  // namespace graft::features
