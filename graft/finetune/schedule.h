// Phases 1 to 3 as a state machine: head only on stored features (with a small sweep and the verdict), gradual
// unfreezing until the metric plateaus, full fine-tuning if the data permit it. Every decision is journalled with its
// evidence; every phase starts from the best weights of the one before.
#pragma once

#include <functional>

#include "graft/data/dataset.h"
#include "graft/features/feed.h"
#include "graft/features/part.h"
#include "graft/features/text_inputs.h"
#include "graft/finetune/options.h"
#include "graft/models/source.h"
#include "graft/report/progress.h"
#include "graft/train/phase.h"
#include "graft/train/task_stream.h"

namespace graft::finetune {

using models::Tensor;
using Tensors = std::map<std::string, Tensor>;

/// One split, ready for a model: inputs and targets.
struct Split {
  const features::Inputs* inputs;
  const data::Examples* examples;
  train::Alignment alignment = {};
};

/// Further examples that run through the model in some steps (replayed ones): their frozen blocks are stored too.
struct Beside {
  const features::Inputs* inputs;
  features::Feed* feed;
  double per_example;  // that run for each new one
};

struct Setting {
  models::Model& model;
  std::function<std::shared_ptr<models::Model>()> random_copy;  // for the verdict
  std::string task;
  std::vector<std::string> label_names;
  Split train, validation;
  FinetuneOptions options;
  train::TrainOptions training;
  features::StoreOptions store;
  std::filesystem::path features_folder;
  uint64_t seed = 0;
  std::vector<std::shared_ptr<train::LossTerm>> terms;  // beside the task's loss, in every phase
  std::vector<Beside> beside;
  bool keep_head = false;                            // head_alone() is wanted
  std::optional<features::KnownPart> measured = {};  // training examples that were captured when the source was chosen
};

/// Where an epoch of a phase in which blocks learn has ended; epoch 0 of "head": where the head phase has left the model.
struct EpochEnd {
  std::string phase;
  int64_t epoch;
  std::string metric;
  double validation;
};

struct Hooks {
  std::function<void(const std::string& event, Json fields)> journal;
  /// `must`: at the end of a phase; otherwise when the last saving is long ago.
  std::function<void(const Json& state, const Tensors& tensors, bool must)> save;
  /// After each phase, with its best weights in the model: what the source still knows; empty for nothing to say.
  std::function<Json(const std::string& phase)> retained;
  /// With the weights of that epoch in the model. What it changes of the terms is saved.
  std::function<void(const EpochEnd&)> watched;
  /// Each once a process, for the measurement of the start: "first_capture", "first_step".
  std::function<void(const std::string& event)> reached;
  report::Progress* progress = nullptr;
};

/// Groups of the chains in the order in which phase 2 unfreezes them.
std::vector<std::string> unfreezing_order(const models::Model& model, const UnfreezeOptions& options);

/// Groups that train in the largest phase that the options allow.
std::set<std::string> most_trained(const models::Model& model, const FinetuneOptions& options);

/// Boundaries of a chain that the head phase stores ahead, for itself and the unfreezings that follow; 0 is left out.
/// Leaves the head alone to train.
std::set<int64_t> boundaries_ahead(models::Model& model, const std::string& chain, const FinetuneOptions& options,
                                   const features::StoreOptions& store);

class Schedule {
 public:
  Schedule(Setting setting, Hooks hooks);
  ~Schedule();

  /// Takes up a saved state; before run().
  void resume(const Json& state, const Tensors& tensors);
  /// To the end; leaves the best weights in the model. Throws Interrupted after having saved.
  void run();
  /// metric, verdict, phases with seconds and gains, terms with their seconds; for causal_lm `source`, the metrics before
  /// anything learned.
  const Json& result() const;
  /// The head as the head phase left it; empty but for Setting::keep_head.
  const Tensors& head_alone() const;

 private:
  struct Machine;
  std::unique_ptr<Machine> machine_;
};

}  // namespace graft::finetune
