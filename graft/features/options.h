// The recipe's [features] section: the store of activations.
#pragma once

#include <cstdint>
#include <string>

namespace graft::features {

struct StoreOptions {
  bool enabled = true;
  double budget_gb = 20;              // disk for stored activations
  std::string precision = "float32";  // float32, bfloat16 or float16
  std::string folder;                 // shared between runs; empty: in the run's own folder
  int64_t capture_tokens = 4096;      // rows of a capture batch
  int64_t units_ahead = 2;            // boundaries of coming unfreezings that one pass stores
  bool bf16 = false;                  // blocks are computed under autocast; follows train.precision, no key of its own

  template <class Visitor>
  void visit(Visitor&& field) {
    field("enabled", enabled, "store what frozen blocks compute instead of computing it in each epoch");
    field("budget_gb", budget_gb, "most disk for stored activations; boundaries that do not fit are recomputed");
    field("precision", precision, "float32, bfloat16 or float16");
    field("folder", folder, "where activations are stored; several runs may share it. Empty: in the run's folder");
    field("capture_tokens", capture_tokens, "tokens of one capture batch");
    field("units_ahead", units_ahead, "boundaries of coming unfreezings that the first pass stores");
  }
};

}  // namespace graft::features
