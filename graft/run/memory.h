// --dry-run's arithmetic of memory: what each phase holds, whether it fits, and which change of the recipe makes it fit.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "graft/core/json.h"

namespace graft::run {

/// Numbers of a group of parameters: in matrices, which train.weights keeps in bfloat16 on request, and in all others.
struct Elements {
  int64_t matrices = 0, others = 0;
};

/// Bytes that a step takes beside weights, gradients and moments: a part that does not hang on its rows, and one that does.
struct Growth {
  double fixed = 0, per_row = 0;
};

/// A phase, by what decides its memory.
struct PhaseShape {
  std::string phase;
  std::set<std::string> trainable;  // groups
  int64_t units = 0;                // unfrozen
  int64_t rows = 0, longest = 0;    // of the largest batch, and of the longest example
  Growth step, checkpointed;        // activations; of the latter with train.activation_checkpointing
  Growth evaluation;                // without gradient, also of the pass that fills a store
  int64_t evaluation_rows = 0;
  bool second_model = false;  // the verdict's random copy, or the probe of the source, stands beside it
  bool for_report = false;    // falls away with retain.report = false
};

/// The keys of the recipe that decide, and that a change may turn.
struct MemoryChoices {
  std::string weights = "float32";
  bool checkpointing = false, report = true, adapters = false, full = true;
  int64_t micro_batch_tokens = 8192, max_units = INT64_MAX;
};

struct MemoryShape {
  std::map<std::string, Elements> groups;  // of the model as the recipe has it
  std::map<std::string, int64_t>
      adapters;              // what lora.rank would give each of them to learn instead; empty: not possible
  int64_t adapter_rank = 0;  // of these
  int64_t process = 0;       // held already: libraries, data
  int64_t anchors = 0;       // numbers that retention keeps beside each weight (EWC 2, L2-SP 1)
  bool mapped = false;       // the file holds the weights in float32, so they need not be in memory before they train
  bool mapped_half = false;  // the same in bfloat16
  std::vector<PhaseShape> phases;
};

struct PhaseBytes {
  int64_t weights = 0, gradients = 0, optimizer = 0, best = 0, activations = 0, other = 0;
  int64_t mapped = 0;  // of `weights`: pages of the source's file
  int64_t total() const { return weights + gradients + optimizer + best + activations + other; }
};

PhaseBytes bytes_of(const MemoryShape& shape, const PhaseShape& phase, const MemoryChoices& choices);

/// The phase that needs most; "" when there are none.
struct Need {
  std::string phase;
  int64_t bytes = 0;
};
Need largest_need(const MemoryShape& shape, const MemoryChoices& choices);

/// Settings as --set takes them, of which the first makes the run fit, or, where none does alone, all together; empty when
/// nothing does. `available`: bytes for the whole process.
struct Remedy {
  std::vector<std::string> settings;
  Need need;
};
Remedy remedy(const MemoryShape& shape, const MemoryChoices& choices, int64_t available);

/// available_bytes, needed_bytes, phase, fits, and what to do as `settings` and in words as `sentence`.
Json memory_verdict(const MemoryShape& shape, const MemoryChoices& choices, int64_t available);

Json to_json(const PhaseBytes& bytes);

}  // namespace graft::run
