#include "graft/train/phase.h"

#include <chrono>
#include <cmath>

#include "graft/core/error.h"
#include "graft/core/interrupt.h"
#include "graft/core/random.h"
#include "graft/io/fields.h"
#include "graft/models/device.h"
#include "graft/train/batches.h"
#include "graft/train/schedule.h"

namespace graft::train {
namespace {

/// Weight decay is for matrices; biases and norms have one dimension.
bool decays(const Tensor& parameter) { return parameter.dim() > 1; }

/// Adds the time that it lives to `seconds`.
struct Timed {
  explicit Timed(double& seconds) : seconds(seconds) {}
  ~Timed() { seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(); }
  double& seconds;
  std::chrono::steady_clock::time_point start = std::chrono::steady_clock::now();
};

/// Adds to `seconds` a term's own part of the backward pass. What was computed last goes back first, so all of it lies
/// between the gradient's coming to the term's value and its coming to the loss before that.
void time_backward(const Tensor& value, const Tensor& before, double& seconds) {
  if (!value.requires_grad() || !before.requires_grad()) return;
  const auto timed = std::make_shared<std::optional<Timed>>();
  value.register_hook([timed, &seconds](const Tensor&) { timed->emplace(seconds); });
  before.register_hook([timed](const Tensor&) { timed->reset(); });
}

}  // namespace

Phase::Phase(models::Model& model, PhasePlan plan, const TrainOptions& options, const Stream& train,
             const Stream& validation, uint64_t seed, std::vector<std::shared_ptr<LossTerm>> terms)
    : model_(model),
      plan_(std::move(plan)),
      options_(options),
      train_(train),
      validation_(validation),
      seed_(seed),
      terms_(std::move(terms)),
      term_sums_(terms_.size()),
      term_seconds_(terms_.size()),
      optimizer_([&] {
        auto adamw = plan_.adamw;
        adamw.stochastic = options_.weights == "bfloat16_stochastic";
        return adamw;
      }()) {
  model_.unfreeze_only(plan_.trainable);
  for (const auto& item : model_.parameters_by_key()) {
    const auto group = model_.group_of(item.key());
    if (!plan_.trainable.contains(group)) continue;
    optimizer_.add(item.key(), item.value(), plan_.learning_rates.at(group),
                   decays(item.value()) ? plan_.weight_decay : 0);
  }
  for (const auto& term : terms_) term->begin_phase();
  if (plan_.start_metric) {
    state_.has_best = true;
    state_.best = state_.reference = *plan_.start_metric;
    keep_best();
  }
}

std::map<std::string, Tensor> Phase::weights() const {
  std::map<std::string, Tensor> views;
  const auto view = [&](const auto& items) {
    for (const auto& item : items)
      if (plan_.trainable.contains(model_.group_of(item.key()))) views[item.key()] = item.value().detach();
  };
  view(model_.parameters_by_key());
  view(model_.buffers_by_key());
  return views;
}

void Phase::keep_best() {
  for (const auto& [key, value] : weights()) {
    auto& kept = best_[key];
    if (kept.defined()) kept.copy_(value);  // into the memory of the best before it
    else kept = value.clone();
  }
}

void Phase::run(const PhaseHooks& hooks) {
  model_.train();
  optimizer_.follow_parameters();  // a head may have been moved since
  while (!state_.done) {
    const auto epoch = static_cast<uint64_t>(state_.epoch);
    const auto batches =
        epoch_batches(train_, options_.batch_size, seed_of(seed_, {plan_.stage, plan_.name, "order"}, {epoch}));
    const auto steps = static_cast<int64_t>(batches.size());
    for (; state_.step < steps; ++state_.step) {
      if (pending_signal()) settle();
      stop_if_interrupted();
      // One step ahead, so that the first step learns too.
      const double position =
          static_cast<double>(state_.epoch * steps + state_.step + 1) / static_cast<double>(plan_.epochs * steps + 1);
      if (state_.step + 1 < steps) train_.expect(batches[state_.step + 1], epoch);
      {
        const Timed timed(step_seconds_);
        train_step(batches[state_.step], position, steps);
      }
      if (hooks.step_done)
        hooks.step_done(state_.epoch, state_.step + 1, steps,
                        state_.weight_sum > 0 ? state_.loss_sum / state_.weight_sum : 0,
                        static_cast<int64_t>(batches[state_.step].size()));
    }
    finish_epoch(hooks);
  }
}

void Phase::train_step(const std::vector<int64_t>& batch, double position, int64_t steps) {
  const auto epoch = static_cast<uint64_t>(state_.epoch);
  const double total = train_.weight(batch, epoch);
  if (total == 0) return;  // a batch without a single label or mask
  optimizer_.zero_grad();
  const bool late = models::head_device(model_).is_cuda();
  double loss_sum = 0;
  Tensor loss_there;
  uint64_t part = 0;
  for (const auto& examples : micro_batches(train_, batch, options_.micro_batch_tokens)) {
    torch::manual_seed(
        seed_of(seed_, {plan_.stage, plan_.name, "dropout"}, {epoch, static_cast<uint64_t>(state_.step), part++}));
    Tensor loss;
    {
      const Autocast autocast(model_.device(), options_.bf16());
      const auto entering = train_.enter(examples, epoch);
      const auto reads = train_.reads(examples, epoch);
      const auto ends = ends_behind(model_, entering, reads, options_.activation_checkpointing);
      for (size_t i = 0; i < terms_.size(); ++i) {
        const Timed timed(term_seconds_[i]);
        terms_[i]->before_head({model_, examples, ends, {}, epoch, &entering, &reads});
      }
      const auto outputs = model_.head->forward(ends);
      loss = train_.loss_sum(outputs, examples, epoch) / total;
      for (size_t i = 0; i < terms_.size(); ++i) {  // shares of the parts add up to 1
        const Timed timed(term_seconds_[i]);
        const auto value = terms_[i]->value({model_, examples, ends, outputs, epoch, &entering, &reads});
        if (!value.defined()) continue;
        const auto share = value * (train_.weight(examples, epoch) / total);
        term_sums_[i] += share.item<double>();
        time_backward(share, loss, term_seconds_[i]);
        loss = loss + share;
      }
    }
    if (late) {
      loss_there = loss_there.defined() ? loss_there + loss.detach() : loss.detach();
    } else {
      loss_sum += loss.item<double>() * total;
      if (!std::isfinite(loss_sum)) count(loss_sum, 0, 0, examples, state_.step);
    }
    loss.backward();
  }
  double terms = 0;
  for (size_t i = 0; i < terms_.size(); ++i) {
    const Timed timed(term_seconds_[i]);
    const auto seed = seed_of(seed_, {plan_.stage, plan_.name, "term", terms_[i]->name()},
                              {epoch, static_cast<uint64_t>(state_.step)});
    const auto value = terms_[i]->add_gradients(
        {model_, epoch, state_.step, steps, static_cast<int64_t>(batch.size()), seed, options_.bf16()});
    term_sums_[i] += value;
    terms += total * value;
  }
  const auto norm = optimizer_.clip_gradients(options_.max_gradient_norm);
  const double warmup = plan_.warmup_fraction.value_or(options_.warmup_fraction);
  const double factor = plan_.cosine ? cosine_warmup_decay(position, warmup) : linear_warmup_decay(position, warmup);
  const auto rounding =
      seed_of(seed_, {plan_.stage, plan_.name, "rounding"}, {epoch, static_cast<uint64_t>(state_.step)});
  if (!late) {
    count(loss_sum + terms, total, norm.item<double>(), batch, state_.step);
    optimizer_.step(factor, rounding);
    return;
  }
  const auto bad = (loss_there + norm).isfinite().logical_not().to(torch::kFloat32);
  optimizer_.step(factor, rounding, bad);
  OnItsWay next{LateValues({loss_there, norm}), total, terms, batch, state_.step};
  settle();
  on_its_way_ = std::move(next);
}

/// Adds a step to the epoch's loss, if loss and norm are finite.
void Phase::count(double loss_sum, double weight, double norm, const std::vector<int64_t>& batch, int64_t step) {
  if (!std::isfinite(loss_sum))
    fail(Kind::numerical,
         "{}, epoch {}, step {}: the loss is {}. The first values that are not finite come from: {}. The best "
         "weights so far are "
         "in the run's newest checkpoint; lower the learning rate of this phase, or train in float32.",
         plan_.name, state_.epoch + 1, step + 1, loss_sum,
         first_bad_block(model_, train_, batch, static_cast<uint64_t>(state_.epoch)));
  GRAFT_CHECK(numerical, std::isfinite(norm),
              "{}, epoch {}, step {}: the gradients are not finite while the loss is. The best weights so far are in "
              "the run's newest checkpoint; lower the learning rate of this phase, or train in float32.",
              plan_.name, state_.epoch + 1, step + 1);
  state_.loss_sum += loss_sum;
  state_.weight_sum += weight;
}

void Phase::settle() {
  if (!on_its_way_) return;
  const auto step = std::move(*on_its_way_);
  on_its_way_.reset();
  const auto values = step.values.get();
  count(values[0] * step.weight + step.terms, step.weight, values[1], step.batch, step.step);
}

void Phase::finish_epoch(const PhaseHooks& hooks) {
  settle();
  const auto predictions = this->predictions();
  const double value = metric_of(plan_.metric, predictions);
  const double sign = smaller_is_better(plan_.metric) ? -1 : 1;
  GRAFT_CHECK(numerical, std::isfinite(value),
              "{}, epoch {}: the validation {} is not a finite number. The best weights so far are in the run's newest "
              "checkpoint.",
              plan_.name, state_.epoch + 1, plan_.metric);
  ++state_.epoch;
  const bool best = !state_.has_best || sign * (value - state_.best) > 0;
  const bool improved = !state_.has_best || sign * (value - state_.reference) > plan_.min_improvement;
  if (best) {
    state_.best = value;
    state_.best_epoch = state_.epoch;
    keep_best();
  }
  state_.has_best = true;
  state_.without_improvement = improved ? 0 : state_.without_improvement + 1;
  if (improved) state_.reference = value;
  Json row{{"epoch", state_.epoch},
           {"loss", state_.weight_sum > 0 ? state_.loss_sum / state_.weight_sum : 0.0},
           {"validation_loss", predictions.loss},
           {plan_.metric, value},
           {"best", best},
           {"seconds", step_seconds_}};
  step_seconds_ = 0;
  for (size_t i = 0; i < terms_.size(); ++i) {
    row["terms"][terms_[i]->name()] = {
        {"value", term_sums_[i] / static_cast<double>(std::max<int64_t>(1, state_.step))},
        {"seconds", term_seconds_[i] + terms_[i]->take_seconds()}};
    if (const auto facts = terms_[i]->facts(); !facts.is_null()) row["terms"][terms_[i]->name()].update(facts);
    term_sums_[i] = term_seconds_[i] = 0;
  }
  state_.history.push_back(row);
  state_.step = 0;
  state_.loss_sum = state_.weight_sum = 0;
  const bool settled =
      plan_.patience > 0 && state_.epoch >= plan_.min_epochs && state_.without_improvement >= plan_.patience;
  state_.done = state_.epoch >= plan_.epochs || settled;
  if (hooks.epoch_done) hooks.epoch_done(row);
}

Predictions Phase::predictions() const {
  return evaluate(model_, validation_, options_.micro_batch_tokens, options_.bf16());
}

void Phase::restore_best() {
  const torch::NoGradGuard no_grad;
  const auto put = [&](auto items) {
    for (auto& item : items) {
      const auto found = best_.find(item.key());
      if (found != best_.end()) item.value().copy_(found->second);
    }
  };
  put(model_.parameters_by_key());
  put(model_.buffers_by_key());
}

Json Phase::state_json() const {
  auto json = io::write_value(state_);
  json["history"] = state_.history;
  json["step_seconds"] = step_seconds_;
  for (size_t i = 0; i < terms_.size(); ++i)
    json["terms"].push_back({{"state", terms_[i]->state()}, {"sum", term_sums_[i]}, {"seconds", term_seconds_[i]}});
  return json;
}

std::map<std::string, Tensor> Phase::state_tensors() const {
  std::map<std::string, Tensor> tensors;
  for (const auto& [key, value] : weights()) tensors["weights." + key] = value;
  for (const auto& [key, value] : best_) tensors["best." + key] = value;
  for (const auto& [key, value] : optimizer_.state()) tensors["optimizer." + key] = value;
  return tensors;
}

void Phase::resume(const Json& json, const std::map<std::string, Tensor>& tensors) {
  auto fields = json;
  state_.history = fields.value("history", Json::array());
  fields.erase("history");
  step_seconds_ = fields.value("step_seconds", 0.0);
  fields.erase("step_seconds");
  if (const auto terms = fields.find("terms"); terms != fields.end()) {
    for (size_t i = 0; i < std::min(terms_.size(), terms->size()); ++i) {
      if (const auto& state = (*terms)[i].at("state"); !state.is_null()) terms_[i]->load_state(state);
      term_sums_[i] = (*terms)[i].at("sum");
      term_seconds_[i] = (*terms)[i].at("seconds");
    }
    fields.erase(terms);
  }
  std::vector<std::string> mistakes;
  io::read_value(fields, state_, "", mistakes);
  GRAFT_CHECK(disk, mistakes.empty(), "the checkpoint's state cannot be read: {}", listed(mistakes));
  const torch::NoGradGuard no_grad;
  std::map<std::string, Tensor> optimizer;
  best_.clear();
  const auto put = [&](auto items) {
    for (auto& item : items) {
      if (!plan_.trainable.contains(model_.group_of(item.key()))) continue;
      const auto found = tensors.find("weights." + item.key());
      GRAFT_CHECK(
          disk, found != tensors.end(),
          "the checkpoint does not fit the run: {} is missing. Resume with the recipe that the run was started with.",
          item.key());
      item.value().copy_(found->second);
    }
  };
  put(model_.parameters_by_key());
  put(model_.buffers_by_key());
  const auto held = weights();
  for (const auto& [name, value] : tensors) {
    if (name.starts_with("best.")) {
      const auto key = name.substr(5);
      const auto kept = held.find(key);
      best_[key] = kept == held.end() ? value.clone() : value.to(kept->second.scalar_type(), false, /*copy=*/true);
    }
    if (name.starts_with("optimizer.")) optimizer[name.substr(10)] = value;
  }
  optimizer_.load_state(optimizer);
}

}  // namespace graft::train
