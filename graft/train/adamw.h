// AdamW (Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101, alg. 2) through ATen's fused kernel:
// one call updates all parameters that share a learning rate and a decay.
// Parameters in bfloat16 step in float32: from a master copy that is kept, or, with stochastic rounding (Gupta et al. 2015,
// https://arxiv.org/abs/1502.02551, sec. 3.1), from themselves, rounded up or down with a chance that makes the mean exact.
#pragma once

#include <torch/types.h>

#include <map>
#include <optional>
#include <string>
#include <vector>

namespace graft::train {

using torch::Tensor;

class AdamW {
 public:
  struct Options {
    double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;
    bool stochastic = false;  // rounding of bfloat16 parameters; else they have master copies
  };

  explicit AdamW(Options options) : options_(options) {}

  /// Parameters that step together. A parameter belongs to one set; identity is its address, never its value.
  void add(const std::string& name, const Tensor& parameter, double learning_rate, double weight_decay);

  /// One step from the parameters' gradients, every learning rate times `factor` (the schedule). Undefined gradients count as
  /// 0. Stochastic rounding draws from `seed`, which must be the step's own. Where `skip`, a scalar on the parameters' device,
  /// is 1, nothing changes, and nobody waits for it.
  void step(double factor, uint64_t seed = 0, const std::optional<Tensor>& skip = {});
  void zero_grad();
  /// Moves the moments to where their parameters are now.
  void follow_parameters();
  /// Scales all gradients so that their common norm is at most `max_norm`; returns the norm before, a scalar on their
  /// device, for which a GPU is not waited for. 0 leaves them.
  Tensor clip_gradients(double max_norm);

  /// "<parameter>.exp_avg", ".exp_avg_sq", ".step" and, of bfloat16 parameters, ".master": for checkpoints.
  std::map<std::string, Tensor> state() const;
  void load_state(const std::map<std::string, Tensor>& state);

 private:
  struct Set {
    double learning_rate, weight_decay;
    std::vector<std::string> names;
    std::vector<Tensor> parameters, exp_avgs, exp_avg_sqs, steps;
    std::vector<Tensor> masters;  // undefined for float32 parameters and with stochastic rounding
  };
  std::vector<Tensor> gradients();
  Options options_;
  std::vector<Set> sets_;
};

}  // namespace graft::train
