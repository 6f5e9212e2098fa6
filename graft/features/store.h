// Activations of every example of a split at one boundary of one chain, computed once and read back in every later epoch.
// A store is one file: rows of the hidden states and of the slots that cross the boundary, ragged, without padding.
// It appears whole or not at all, under a name that is a hash of all that its values depend on.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>

#include "graft/features/inputs.h"
#include "graft/models/model.h"

namespace graft::features {

namespace fs = std::filesystem;

/// The recipe's [features] section.
struct StoreOptions {
  bool enabled = true;
  double budget_gb = 20;             // disk for stored activations
  std::string precision = "float32";  // float32, bfloat16 or float16
  std::string folder;                // shared between runs; empty: in the run's own folder
  int64_t capture_tokens = 4096;     // rows of a capture batch

  template <class Visitor>
  void visit(Visitor&& field) {
    field("enabled", enabled, "store what frozen blocks compute instead of computing it in each epoch");
    field("budget_gb", budget_gb, "most disk for stored activations; boundaries that do not fit are recomputed");
    field("precision", precision, "float32, bfloat16 or float16");
    field("folder", folder, "where activations are stored; several runs may share it. Empty: in the run's folder");
    field("capture_tokens", capture_tokens, "tokens of one capture batch");
  }
};

class Store {
 public:
  /// Maps a finished file.
  explicit Store(const fs::path& file);
  /// The activations of these examples, in this order, as float32 on `device`. Sorted examples are read fastest.
  models::Activations read(const std::vector<int64_t>& examples, torch::Device device) const;
  int64_t length(int64_t example) const;  // rows of the hidden states
  int64_t size() const;

 private:
  struct State;
  std::shared_ptr<const State> state_;
};

/// What decides the values at a boundary: weights of the blocks before it, inputs, precision, batch plan.
std::string store_key(const models::Model& model, const std::string& chain, int64_t boundary, const models::Reads& reads,
                      const Inputs& inputs, const StoreOptions& options);

/// Bytes that a store at this boundary takes, from lengths alone; a probe of one example tells the widths.
uint64_t store_bytes(models::Model& model, const std::string& chain, int64_t boundary, const Inputs& inputs, const StoreOptions& options);

struct CaptureResult {
  std::vector<std::optional<Store>> stores;  // one a boundary; nullopt when over budget or off
  std::vector<std::string> notes;            // why a boundary is absent
  double seconds = 0;                        // 0 when all were there already
};

/// Stores for all `boundaries` of a chain, in one pass over the inputs where files are missing.
/// The last boundary may be the chain's end; there only what `reads` names is stored.
/// Frozen blocks run in evaluation mode without gradient. `progress(done, total)` in examples.
CaptureResult capture(models::Model& model, const std::string& chain, const std::vector<int64_t>& boundaries,
                      const models::Reads& reads, const Inputs& inputs, const fs::path& folder, const StoreOptions& options,
                      const std::function<void(int64_t, int64_t)>& progress = {});

/// Examples in batches of at most `tokens` rows, sorted by length; a function of the lengths alone.
std::vector<std::vector<int64_t>> batches_by_length(const Inputs& inputs, int64_t tokens);

/// Removes all but the named files of a run's own folder.
void prune(const fs::path& folder, const std::vector<std::string>& keep);

}  // namespace graft::features
