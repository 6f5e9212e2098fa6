// Replay: examples of the source's own task, with their own labels and head, among those of the new one.
// Paper:  Chaudhry et al. 2019, https://arxiv.org/abs/1902.10486 (a small buffer of old examples, trained on beside the new).
#pragma once

#include <memory>

#include "graft/train/loss_term.h"

namespace graft::retain {

class Replay final : public train::LossTerm {
 public:
  /// `examples` of the source's task on the model that trains; the loss, a mean over what it counts (tokens), is added with
  /// the weight of one example each.
  /// `fraction` of all examples of an epoch are replayed: exactly, to one example. `old_head` (of the source, frozen) judges
  /// them; null: the model's own head. `also` is a term that is asked of them beside their labels, and without `labels`
  /// instead of these. `stream` and `old_head` must outlive this.
  Replay(const train::Stream& stream, std::vector<int64_t> examples, double fraction, uint64_t seed,
         std::shared_ptr<models::Head> old_head, std::shared_ptr<train::LossTerm> also = nullptr, bool labels = true);

  std::string name() const override { return labels_ ? "replay" : also_->name() + " on the source's text"; }
  double add_gradients(const train::WholeStep& step) override;
  void begin_phase() override {
    if (also_) also_->begin_phase();
  }
  double take_seconds() override { return also_ ? also_->take_seconds() : 0; }
  Json facts() const override { return also_ ? also_->facts() : Json(); }
  Json state() const override;
  void load_state(const Json& state) override;

  /// Replayed in the epoch so far.
  int64_t replayed() const { return replayed_; }

 private:
  const train::Stream& stream_;
  std::vector<int64_t> examples_;
  double per_example_;  // replayed examples for each new one
  uint64_t seed_;
  std::shared_ptr<models::Head> old_head_;
  std::shared_ptr<train::LossTerm> also_;
  bool labels_;
  int64_t seen_ = 0, replayed_ = 0;  // in this epoch
};

/// `count` of the examples with these labels, as many of each as there can be, seeded. 0: all.
std::vector<int64_t> balanced(const std::vector<int64_t>& labels, int64_t count, uint64_t seed);

}  // namespace graft::retain
