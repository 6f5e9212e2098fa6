// Domain-adaptive pre-training (Gururangan et al. 2020) on the domain's own text or images, by what the source was
// pretrained with, all weights learning, held-out loss before and after, best weights kept.
#pragma once

#include <functional>

#include "graft/adapt/objective.h"
#include "graft/report/progress.h"
#include "graft/train/phase.h"

namespace graft::adapt {

using Tensors = std::map<std::string, train::Tensor>;

struct Hooks {
  std::function<void(const std::string& event, Json fields)> journal;
  std::function<void(const Json& state, const Tensors& tensors, bool must)> save;
  std::vector<std::shared_ptr<train::LossTerm>> terms = {};  // beside the objective's loss, where everything learns
  std::function<Json()> retained = {};                       // at the end: what the source still knows
  report::Progress* progress = nullptr;
};

class Adaptation {
 public:
  /// `model` has the objective's head; a `fresh_head` first learns alone. `objective` must outlive this.
  Adaptation(models::Model& model, const Objective& objective, const AdaptOptions& options,
             const train::TrainOptions& training, uint64_t seed, bool fresh_head, Hooks hooks);
  void resume(const Json& state, const Tensors& tensors);
  /// Leaves the best weights in the model. Throws Interrupted after having saved.
  void run();
  /// Held-out loss (of texts perplexity too) before and after. With a fresh head "before" is taken when the head has learned on the
  /// source's features, and "random_head" before that: so before and after compare encoders, not heads.
  const Json& result() const { return result_; }

 private:
  /// The phase that is due: the fresh head alone, or everything.
  std::unique_ptr<train::Phase> phase() const;
  double held_out_loss() const;
  Json measured(double loss) const;              // loss, and perplexity where there is one
  std::string number(const Json& values) const;  // for people: the one of these that the objective is judged by
  std::string told(const Json& values) const;    // the same with its name
  void save(bool must) const;
  void run_phase(const std::string& title);

  models::Model& model_;
  Hooks hooks_;
  AdaptOptions options_;
  const Objective& objective_;
  train::TrainOptions training_;
  uint64_t seed_;
  bool head_alone_;  // the phase in progress is the fresh head's
  std::unique_ptr<train::Phase> phase_;
  Json result_;
};

}  // namespace graft::adapt
