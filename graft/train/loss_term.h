// One penalty beside the task loss (graft/retain). Terms are summed and never see each other.
#pragma once

#include <optional>

#include "graft/train/ends.h"

namespace graft::train {

using Entering = std::map<std::string, Activations>;

struct Step {
  models::Model& model;
  const std::vector<int64_t>& examples;
  const Ends& ends;  // of the chains, which a term's own head may read
  const Outputs& outputs;
  uint64_t epoch;
  const Entering* entering = nullptr;           // what entered the boundaries, for a term that runs another suffix
  const std::optional<Reads>* reads = nullptr;  // as Stream::reads()
};

/// A step as a whole, when the gradients of all its parts have been added up.
struct WholeStep {
  models::Model& model;
  uint64_t epoch;
  int64_t step, steps;  // of the epoch
  int64_t examples;
  uint64_t seed;  // of this step and phase, for whatever a term draws
  bool bf16 = false;
};

struct LossTerm {
  virtual ~LossTerm() = default;
  /// Before the head is asked: a term of the head's own logits may join it there (models/language_head.h). No outputs yet.
  virtual void before_head(const Step&) {}
  /// Seconds that it took within the head since the last call.
  virtual double take_seconds() { return 0; }
  /// A scalar, a mean where it is of examples, or nothing; with the weight that the term itself applies. A step
  /// computed in parts adds each part's value by its share of the loss's items.
  virtual Tensor value(const Step&) { return {}; }
  /// Once a step: adds to the parameters' gradients what does not depend on the step's examples (a pull towards an
  /// anchor, examples of its own), and returns the value whose gradient that is.
  virtual double add_gradients(const WholeStep&) { return 0; }
  virtual std::string name() const { return "term"; }
  /// From the next epoch on, `factor` times as strong; returns the strength that it then has. nullopt: it has none, or
  /// cannot be stronger.
  virtual std::optional<double> strengthen(double) { return {}; }
  /// A phase begins (or is about to be resumed): what was adapted in the one before is forgotten.
  virtual void begin_phase() {}
  /// What the journal says of it at the end of an epoch, beside its value and its time.
  virtual Json facts() const { return {}; }
  /// What it has learned on the way (an adapted coefficient, a strength that was raised); saved with the phase.
  virtual Json state() const { return {}; }
  virtual void load_state(const Json&) {}
};

}  // namespace graft::train
