// Replay: examples of the source's own task, with their own labels and head, among those of the new one.
// Papers: Chaudhry et al. 2019, https://arxiv.org/abs/1902.10486 (a small buffer of old examples, trained on beside the new);
//         Buzzega et al. 2020, https://arxiv.org/abs/2004.07211 (dark experience replay: the mean squared difference from
//         the logits that the source had, beside the labels as in their DER++).
#pragma once

#include <memory>

#include "graft/retain/answers.h"
#include "graft/train/loss_term.h"

namespace graft::retain {

/// What is asked of a replayed example beside, or instead of, its label.
struct BesideLabels {
  Answers logits = {};       // of the source, to all examples of the stream
  double logits_weight = 0;  // of the squared difference from them
  std::shared_ptr<train::LossTerm> term = nullptr;
  bool labels = true;  // its label is learned
};

class Replay final : public train::LossTerm {
 public:
  using Beside = BesideLabels;
  /// `examples` of the source's task on the model that trains; the loss, a mean over what it counts (tokens), is added with
  /// the weight of one example each.
  /// `fraction` of all examples of an epoch are replayed: exactly, to one example. `old_head` (of the source, frozen) judges
  /// them; null: the model's own head. `stream` and `old_head` must outlive this.
  Replay(const train::Stream& stream, std::vector<int64_t> examples, double fraction, uint64_t seed,
         std::shared_ptr<models::Head> old_head, Beside beside = {});

  std::string name() const override {
    return beside_.labels ? "replay" : beside_.term->name() + " on the source's text";
  }
  double add_gradients(const train::WholeStep& step) override;
  /// Replays more: `factor` replayed examples where there was one, until there are as many as new ones. Returns the
  /// fraction of all. At the end of an epoch only, so that the fraction is exact over the next.
  std::optional<double> strengthen(double factor) override;
  void begin_phase() override {
    if (beside_.term) beside_.term->begin_phase();
  }
  double take_seconds() override { return beside_.term ? beside_.term->take_seconds() : 0; }
  Json facts() const override { return beside_.term ? beside_.term->facts() : Json(); }
  Json state() const override;
  void load_state(const Json& state) override;

  /// Replayed in the epoch so far.
  int64_t replayed() const { return replayed_; }

 private:
  models::Tensor moved_logits(const models::Tensor& logits, const std::vector<int64_t>& examples) const;

  const train::Stream& stream_;
  std::vector<int64_t> examples_;
  double per_example_;  // replayed examples for each new one
  uint64_t seed_;
  std::shared_ptr<models::Head> old_head_;
  Beside beside_;
  int64_t seen_ = 0, replayed_ = 0;  // in this epoch
};

}  // namespace graft::retain
