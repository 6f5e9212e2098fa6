#include "graft/train/adamw.h"

#include <ATen/CPUGeneratorImpl.h>
#include <torch/types.h>

#include <limits>

#include "graft/core/error.h"

namespace graft::train {
namespace {

bool is_half(const Tensor& parameter) { return parameter.scalar_type() == torch::kBFloat16; }

/// A bfloat16 is the upper half of a float32: with 16 random bits added below, what is cut off carries over with a chance
/// in proportion to it.
Tensor rounded_stochastically(const Tensor& exact, at::Generator& generator) {
  const auto bits = exact.contiguous().view(torch::kInt32);
  const auto options = torch::TensorOptions().dtype(torch::kInt64);
  const auto random = torch::empty({(exact.numel() + 3) / 4}, options)
                          .random_(std::numeric_limits<int64_t>::min(), std::nullopt, generator)
                          .view(torch::kInt16)
                          .narrow(0, 0, exact.numel())
                          .to(exact.device(), torch::kInt32)
                          .bitwise_and_(0xFFFF)
                          .view(exact.sizes());
  return (bits + random).bitwise_and_(-0x10000).view(torch::kFloat32);
}

}  // namespace

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
  const auto type = is_half(parameter) ? torch::kFloat32 : parameter.scalar_type();
  const auto moment = [&] { return torch::zeros_like(parameter, type); };
  set->exp_avgs.push_back(moment());
  set->exp_avg_sqs.push_back(moment());
  set->masters.push_back(is_half(parameter) && !options_.stochastic ? parameter.detach().to(torch::kFloat32)
                                                                    : Tensor());
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

Tensor AdamW::clip_gradients(double max_norm) {
  const torch::NoGradGuard no_grad;
  const auto grads = gradients();
  const auto norm = torch::stack(at::_foreach_norm(grads, 2, torch::kFloat32)).norm();
  if (max_norm <= 0) return norm;
  if (!norm.device().is_cpu()) at::_foreach_mul_(grads, (max_norm / (norm + 1e-6)).clamp_max(1));
  else if (const auto value = norm.item<double>(); value > max_norm)
    at::_foreach_mul_(grads, max_norm / (value + 1e-6));
  return norm;
}

void AdamW::step(double factor, uint64_t seed, const std::optional<Tensor>& skip) {
  const torch::NoGradGuard no_grad;
  gradients();
  auto generator = at::make_generator<at::CPUGeneratorImpl>(seed);
  for (auto& set : sets_) {
    const auto fused = [&](at::TensorList parameters, at::TensorList grads, at::TensorList exp_avgs,
                           at::TensorList exp_avg_sqs, at::TensorList steps) {
      at::_fused_adamw_(parameters, grads, exp_avgs, exp_avg_sqs, {}, steps, set.learning_rate * factor, options_.beta1,
                        options_.beta2, set.weight_decay, options_.epsilon, /*amsgrad=*/false, /*maximize=*/false, {},
                        skip);
    };
    if (skip) at::_foreach_add_(set.steps, 1 - *skip);
    else at::_foreach_add_(set.steps, 1);
    std::vector<Tensor> parameters, grads, exp_avgs, exp_avg_sqs, steps;
    for (size_t i = 0; i < set.parameters.size(); ++i) {
      auto& parameter = set.parameters[i];
      if (is_half(parameter)) {  // one at a time: of what is wide, little lives at once
        const auto exact = set.masters[i].defined() ? set.masters[i] : parameter.detach().to(torch::kFloat32);
        fused({exact}, {parameter.grad().to(torch::kFloat32)}, {set.exp_avgs[i]}, {set.exp_avg_sqs[i]}, {set.steps[i]});
        parameter.copy_(set.masters[i].defined() ? exact : rounded_stochastically(exact, generator));
        continue;
      }
      parameters.push_back(parameter);
      grads.push_back(parameter.grad());
      exp_avgs.push_back(set.exp_avgs[i]);
      exp_avg_sqs.push_back(set.exp_avg_sqs[i]);
      steps.push_back(set.steps[i]);
    }
    if (!parameters.empty()) fused(parameters, grads, exp_avgs, exp_avg_sqs, steps);
  }
}

void AdamW::follow_parameters() {
  for (auto& set : sets_)
    for (size_t i = 0; i < set.parameters.size(); ++i)
      for (auto* moment : {&set.exp_avgs[i], &set.exp_avg_sqs[i], &set.steps[i], &set.masters[i]})
        if (moment->defined()) *moment = moment->to(set.parameters[i].device());
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
      if (set.masters[i].defined()) state[set.names[i] + ".master"] = set.masters[i];
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
      if (set.masters[i].defined()) restore(set.masters[i], set.names[i] + ".master");
    }
}

}  // namespace graft::train
