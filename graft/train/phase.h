// One phase of training: some groups learn for some epochs, the best weights by validation metric are kept.
// Whatever happened before can be taken up again: a phase is a function of its plan, its data, its seed and its state.
#pragma once

#include <functional>

#include "graft/train/adamw.h"
#include "graft/train/late_values.h"
#include "graft/train/loss_term.h"
#include "graft/train/options.h"

namespace graft::train {

struct PhasePlan {
  std::string stage, name;                       // "finetune", "unfreeze 2": part of every seed
  std::set<std::string> trainable;               // groups
  std::map<std::string, double> learning_rates;  // by group
  double weight_decay = 0.01;
  AdamW::Options adamw = {};
  bool cosine = false;                    // the learning rate's fall; else linear
  std::optional<double> warmup_fraction;  // given: instead of the recipe's
  int64_t min_epochs = 0, epochs = 1;
  int64_t patience = 0;  // epochs without improvement before it stops; 0: never
  std::string metric;
  double min_improvement = 0;          // what counts for patience
  std::optional<double> start_metric;  // given: the weights at the start compete for the best
};

struct PhaseState {
  int64_t epoch = 0, step = 0;          // of the epoch in progress
  double loss_sum = 0, weight_sum = 0;  // of that epoch
  int64_t best_epoch = 0;               // 0: the start
  double best = 0;
  bool has_best = false;
  int64_t without_improvement = 0;
  double reference = 0;  // the metric that patience compares with
  bool done = false;
  Json history =
      Json::array();  // {epoch, loss, validation, best, terms: name -> mean value and seconds, seconds of the steps}

  template <class Visitor>
  void visit(Visitor&& field) {
    field("epoch", epoch, "");
    field("step", step, "");
    field("loss_sum", loss_sum, "");
    field("weight_sum", weight_sum, "");
    field("best_epoch", best_epoch, "");
    field("best", best, "");
    field("has_best", has_best, "");
    field("without_improvement", without_improvement, "");
    field("reference", reference, "");
    field("done", done, "");
  }
};

struct PhaseHooks {
  std::function<void(const Json& epoch)> epoch_done;  // after each epoch's evaluation
  std::function<void(int64_t epoch, int64_t step, int64_t steps, double loss, int64_t examples)> step_done;
};

class Phase {
 public:
  Phase(models::Model& model, PhasePlan plan, const TrainOptions& options, const Stream& train,
        const Stream& validation, uint64_t seed, std::vector<std::shared_ptr<LossTerm>> terms = {});

  /// Trains to the end. Throws Interrupted after a finished step when a signal arrived, Kind::numerical within one step
  /// when the loss is not finite (naming the first bad block), with nothing changed since the step before.
  void run(const PhaseHooks& hooks);
  bool done() const { return state_.done; }
  const PhaseState& state() const { return state_; }
  const PhasePlan& plan() const { return plan_; }

  /// Puts the best weights into the model.
  void restore_best();
  /// Validation predictions of the weights that the model has now.
  Predictions predictions() const;

  Json state_json() const;
  /// "weights.<key>", "best.<key>", "optimizer.<key>.<part>": views, which the next step changes.
  std::map<std::string, Tensor> state_tensors() const;
  void resume(const Json& state, const std::map<std::string, Tensor>& tensors);

 private:
  void train_step(const std::vector<int64_t>& batch, double position, int64_t steps);
  void count(double loss_sum, double weight, double norm, const std::vector<int64_t>& batch, int64_t step);
  void settle();  // counts the step that is still on its way
  void finish_epoch(const PhaseHooks& hooks);
  std::map<std::string, Tensor> weights() const;  // views
  void keep_best();

  models::Model& model_;
  PhasePlan plan_;
  TrainOptions options_;
  const Stream& train_;
  const Stream& validation_;
  uint64_t seed_;
  std::vector<std::shared_ptr<LossTerm>> terms_;
  std::vector<double> term_sums_, term_seconds_;  // of the epoch in progress
  double step_seconds_ = 0;                       // likewise
  AdamW optimizer_;
  PhaseState state_;
  std::map<std::string, Tensor> best_;

  /// On a GPU, loss and norm of a step are read while the next one is computed. A step that is not finite changes nothing,
  /// so it is not too late then.
  struct OnItsWay {
    LateValues values;  // the loss, and the norm of the gradients
    double weight = 0, terms = 0;
    std::vector<int64_t> batch;
    int64_t step = 0;
  };
  std::optional<OnItsWay> on_its_way_;
};

}  // namespace graft::train
