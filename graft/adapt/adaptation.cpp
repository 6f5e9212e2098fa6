#include "graft/adapt/adaptation.h"

#include <chrono>
#include <cmath>

#include "graft/core/error.h"
#include "graft/core/interrupt.h"

namespace graft::adapt {
Adaptation::Adaptation(models::Model& model, const Objective& objective, const AdaptOptions& options,
                       const train::TrainOptions& training, uint64_t seed, bool fresh_head, Hooks hooks)
    : model_(model),
      hooks_(std::move(hooks)),
      options_(options),
      objective_(objective),
      training_(training),
      seed_(seed),
      head_alone_(fresh_head && options.head_epochs > 0) {
  training_.batch_size = options.batch_size;
  result_ = objective.counts;
}

std::unique_ptr<train::Phase> Adaptation::phase() const {
  train::PhasePlan plan;
  plan.stage = "adapt";
  plan.name = head_alone_ ? objective_.name + " head" : objective_.name;
  plan.trainable = head_alone_ ? std::set<std::string>{"head"} : model_.all_groups();
  for (const auto& group : plan.trainable)
    plan.learning_rates[group] = head_alone_ ? options_.head_learning_rate : options_.learning_rate;
  plan.weight_decay = training_.weight_decay;
  plan.epochs = head_alone_ ? options_.head_epochs : options_.epochs;
  plan.patience = head_alone_ ? 0 : options_.patience;
  plan.metric = "loss";
  if (objective_.settings) objective_.settings(head_alone_, plan);
  plan.start_metric = result_.at(head_alone_ ? "random_head" : "before").at("loss").get<double>();
  return std::make_unique<train::Phase>(model_, plan, training_, *objective_.training, *objective_.held_out, seed_,
                                        head_alone_ ? decltype(hooks_.terms){} : hooks_.terms);
}

Json Adaptation::measured(double loss) const {
  Json values{{"loss", loss}};
  if (objective_.perplexity) values["perplexity"] = std::exp(loss);
  return values;
}

std::string Adaptation::number(const Json& values) const {
  return objective_.perplexity ? fmt::format("{:.2f}", values.at("perplexity").get<double>())
                               : fmt::format("{:.4f}", values.at("loss").get<double>());
}

std::string Adaptation::told(const Json& values) const {
  return (objective_.perplexity ? "perplexity " : "reconstruction loss ") + number(values);
}

double Adaptation::held_out_loss() const {
  return train::evaluate(model_, *objective_.held_out, training_.micro_batch_tokens, training_.bf16()).loss;
}

void Adaptation::save(bool must) const {
  if (hooks_.save)
    hooks_.save({{"result", result_}, {"head_alone", head_alone_}, {"phase", phase_->state_json()}},
                phase_->state_tensors(), must);
}

void Adaptation::resume(const Json& state, const Tensors& tensors) {
  result_ = state.at("result");
  head_alone_ = state.at("head_alone");
  phase_ = phase();
  phase_->resume(state.at("phase"), tensors);
}

void Adaptation::run_phase(const std::string& title) {
  if (!phase_) phase_ = phase();
  train::PhaseHooks hooks;
  const auto started = std::chrono::steady_clock::now();
  int64_t examples_seen = 0;
  hooks.step_done = [&](int64_t epoch, int64_t step, int64_t steps, double loss, int64_t examples) {
    examples_seen += examples;
    const auto epochs = phase_->plan().epochs;
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
    hooks_.progress->step(title, epoch * steps + step, epochs * steps,
                          fmt::format("epoch {}/{}  loss {:.4f}  best {}  {:.0f} examples/s", epoch + 1, epochs, loss,
                                      told(measured(phase_->state().best)), examples_seen / std::max(1e-3, seconds)));
  };
  hooks.epoch_done = [&](const Json& epoch) {
    auto entry = epoch;
    entry["phase"] = title;
    const auto values = measured(epoch["validation_loss"].get<double>());
    if (objective_.perplexity) entry["perplexity"] = values["perplexity"];
    hooks_.journal("epoch", entry);
    hooks_.progress->line(fmt::format("{}, epoch {}/{}: held-out {}", title, epoch["epoch"].get<int64_t>(),
                                      phase_->plan().epochs, told(values)));
    save(false);
  };
  try {
    phase_->run(hooks);
  } catch (const Interrupted&) {
    save(true);
    throw;
  } catch (const Error& e) {
    if (e.kind == Kind::numerical) save(true);  // its sentence says where the best weights are
    throw;
  }
  phase_->restore_best();
}

void Adaptation::run() {
  const auto started = std::chrono::steady_clock::now();
  hooks_.progress->title("Adapting to the domain: " + objective_.title);
  if (!phase_) {
    const auto loss = held_out_loss();
    result_[head_alone_ ? "random_head" : "before"] = measured(loss);
    hooks_.journal("adapt_start", result_);
    hooks_.progress->line(fmt::format("{}; held-out {}", objective_.material, told(measured(loss))));
  }
  if (head_alone_) {
    run_phase("adapt, head alone");
    result_["before"] = measured(phase_->state().best);
    phase_.reset();
    head_alone_ = false;
  }
  run_phase("adapt");
  result_["after"] = measured(phase_->state().best);
  result_["best_epoch"] = phase_->state().best_epoch;
  if (hooks_.retained)
    if (const auto kept = hooks_.retained(); !kept.empty()) result_["retained"] = kept;
  auto entry = result_;
  entry["phase"] = "adapt";
  entry["seconds"] = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
  hooks_.journal("phase_end", entry);
  hooks_.progress->line(fmt::format("held-out {} -> {}", told(result_["before"]), number(result_["after"])));
}

}  // namespace graft::adapt
