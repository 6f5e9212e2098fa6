// Elastic weight consolidation: a pull of each parameter towards where the source had it, as strong as it mattered.
// Paper:  Kirkpatrick et al. 2017, https://arxiv.org/abs/1612.00796, eq. 3:
//           strength / 2 * sum_i F_i (theta_i - theta*_i)^2
//         With F = 1 it is L2-SP (Li et al. 2018, https://arxiv.org/abs/1802.01483, eq. 4, without its second term).
// Cost:   one pass over parameters, anchors, Fisher and gradients a step, no memory besides; rows of a table whose Fisher
//         is 0 (words that the source's data do not have) are not read.
#pragma once

#include "graft/retain/anchors.h"
#include "graft/train/loss_term.h"

namespace graft::retain {

class Ewc final : public train::LossTerm {
 public:
  /// Parameters of `model` that have no anchor, or one of another shape (a new head), are free. `label` is "ewc" or "l2sp".
  /// Throws Kind::model when none has one.
  Ewc(const models::Model& model, Anchors anchors, double strength, std::string label = "ewc");

  std::string name() const override { return label_; }
  std::optional<double> strengthen(double factor) override { return strength *= factor; }
  /// The penalty; adds strength * F (theta - theta*) to the gradients of the parameters that learn.
  double add_gradients(const train::WholeStep& step) override;
  Json state() const override { return {{"strength", strength}}; }
  void load_state(const Json& state) override { strength = state.at("strength"); }

  double strength;

 private:
  double add_gradients_on_device();
  /// Consecutive values of one parameter that are pulled.
  struct Span {
    size_t anchor;
    int64_t start, size;
  };
  struct Held {
    std::string key;
    Tensor parameter, at, fisher;
  };
  std::string label_;
  std::vector<Held> held_;
  std::vector<Span> spans_;
  std::vector<double> partial_;
};

/// `gradient` += strength * fisher (theta - at) over `size` values; returns sum of fisher (theta - at)^2. `fisher` null: 1.
/// ATen has no operation that reads all four once.
double pull(float* gradient, const float* theta, const float* at, const float* fisher, int64_t size, float strength);

}  // namespace graft::retain
