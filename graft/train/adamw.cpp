#include "graft/train/adamw.h"

#include <torch/types.h>

#include "graft/core/error.h"

namespace graft::train {

void AdamW::add(const std::string& name, const Tensor& parameter, double learning_rate, double weight_decay) {
  auto set = std::find_if(sets_.begin(), sets_.end(), [&](const Set& s) {
    return s.learning_rate == learning_rate && s.weight_decay == weight_decay;
  });
  if (set == sets_.end()) {
    sets_.push_back({learning_rate, weight_decay});
    set = sets_.end() - 1;
  }
  set->names.push_back(name);
  set->parameters.push_back(parameter);
  set->exp_avgs.push_back(torch::zeros_like(parameter));
  set->exp_avg_sqs.push_back(torch::zeros_like(parameter));
  set->steps.push_back(torch::zeros({}, torch::TensorOptions().dtype(torch::kFloat32).device(parameter.device())));
}

std::vector<Tensor> AdamW::gradients() {
  std::vector<Tensor> all;
  for (auto& set : sets_)
    for (auto& parameter : set.parameters) {
      if (!parameter.grad().defined()) parameter.mutable_grad() = torch::zeros_like(parameter);
      all.push_back(parameter.grad());
    }
  return all;
}

double AdamW::clip_gradients(double max_norm) {
  const torch::NoGradGuard no_grad;
  const auto grads = gradients();
  const auto norm = torch::stack(at::_foreach_norm(grads, 2)).norm().item<double>();
  if (max_norm > 0 && norm > max_norm) at::_foreach_mul_(grads, max_norm / (norm + 1e-6));
  return norm;
}

void AdamW::step(double factor) {
  const torch::NoGradGuard no_grad;
  gradients();
  for (auto& set : sets_) {
    std::vector<Tensor> grads;
    for (const auto& parameter : set.parameters) grads.push_back(parameter.grad());
    at::_foreach_add_(set.steps, 1);
    at::_fused_adamw_(set.parameters, grads, set.exp_avgs, set.exp_avg_sqs, {}, set.steps, set.learning_rate * factor,
                      options_.beta1, options_.beta2, set.weight_decay, options_.epsilon, /*amsgrad=*/false,
                      /*maximize=*/false);
  }
}

void AdamW::zero_grad() {
  for (auto& set : sets_)
    for (auto& parameter : set.parameters) parameter.mutable_grad() = Tensor();
}

std::map<std::string, Tensor> AdamW::state() const {
  std::map<std::string, Tensor> state;
  for (const auto& set : sets_)
    for (size_t i = 0; i < set.names.size(); ++i) {
      state[set.names[i] + ".exp_avg"] = set.exp_avgs[i];
      state[set.names[i] + ".exp_avg_sq"] = set.exp_avg_sqs[i];
      state[set.names[i] + ".step"] = set.steps[i];
    }
  return state;
}

void AdamW::load_state(const std::map<std::string, Tensor>& state) {
  const auto restore = [&](Tensor& target, const std::string& name) {
    const auto found = state.find(name);
    GRAFT_CHECK(disk, found != state.end() && found->second.sizes() == target.sizes(),
                "the checkpoint does not fit the run: the optimizer's {} is missing or has another shape. Resume with "
                "the recipe that the run was started with.",
                name);
    target.copy_(found->second);
  };
  for (auto& set : sets_)
    for (size_t i = 0; i < set.names.size(); ++i) {
      restore(set.exp_avgs[i], set.names[i] + ".exp_avg");
      restore(set.exp_avg_sqs[i], set.names[i] + ".exp_avg_sq");
      restore(set.steps[i], set.names[i] + ".step");
    }
}

}  // namespace graft::train
