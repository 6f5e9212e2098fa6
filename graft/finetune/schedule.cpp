#include "graft/finetune/schedule.h"

#include <chrono>

#include "graft/core/error.h"
#include "graft/core/hash.h"
#include "graft/core/interrupt.h"
#include "graft/core/random.h"
#include "graft/finetune/closed_form.h"
#include "graft/finetune/verdict.h"
#include "graft/io/fields.h"
#include "graft/io/file.h"
#include "graft/models/device.h"
#include "graft/train/batch_norm_statistics.h"

namespace graft::finetune {
namespace {

using train::Phase;
using train::PhasePlan;
using train::Predictions;
using train::Supervised;

constexpr int64_t kVerdictExamples = 2000;

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// Where the machine stands; what a checkpoint holds beside the phase's own state.
struct State {
  std::string stage = "head";  // head, unfreeze, full, done
  int64_t trial = 0;           // of the head's sweep
  int64_t best_trial = -1;
  double best_trial_metric = 0;
  int64_t unit = 0;  // units unfrozen so far, the one in progress included
  int64_t units_without_gain = 0;
  double metric = 0;  // of the best weights so far
  double after_head = 0;
  bool measured = false;    // the source itself was
  double of_source = 0;     // its metric
  bool statistics = false;  // of batch norms were estimated on the target
  bool in_phase = false;
  double phase_seconds = 0;  // spent before an interruption

  template <class Visitor>
  void visit(Visitor&& field) {
    field("stage", stage, "");
    field("trial", trial, "");
    field("best_trial", best_trial, "");
    field("best_trial_metric", best_trial_metric, "");
    field("unit", unit, "");
    field("units_without_gain", units_without_gain, "");
    field("metric", metric, "");
    field("after_head", after_head, "");
    field("measured", measured, "");
    field("of_source", of_source, "");
    field("statistics", statistics, "");
    field("in_phase", in_phase, "");
    field("phase_seconds", phase_seconds, "");
  }
};

struct Trial {
  double learning_rate, weight_decay;
  bool closed_form = false;  // where the last layer starts
};

data::Examples chosen(const data::Examples& all, const std::vector<int64_t>& examples) {
  data::Examples some;
  for (const auto i : examples) {
    some.texts.push_back(all.texts[i]);
    if (!all.labels.empty()) some.labels.push_back(all.labels[i]);
    if (!all.label_sets.empty()) some.label_sets.push_back(all.label_sets[i]);
    if (!all.values.empty()) some.values.push_back(all.values[i]);
  }
  return some;
}

/// A sample of a split, with everything that refers to it.
struct SampledSplit {
  SampledSplit(const Split& all, const std::vector<int64_t>& examples)
      : inputs(*all.inputs, examples), targets(chosen(*all.examples, examples)) {
    if (!all.alignment.first_tokens) return;
    for (const auto i : examples) first_tokens.push_back((*all.alignment.first_tokens)[i]);
    split.alignment.first_tokens = &first_tokens;
  }
  features::PartOfInputs inputs;
  data::Examples targets;
  data::Ragged<int32_t> first_tokens;
  Split split{&inputs, &targets};
};

int64_t most_units(const std::vector<std::string>& units, const UnfreezeOptions& options) {
  const auto n = static_cast<int64_t>(units.size());
  return options.max_units < 0 ? n : std::min(n, options.max_units);
}

std::set<std::string> head_and(const std::vector<std::string>& units, int64_t unfrozen) {
  std::set<std::string> groups{"head"};
  groups.insert(units.begin(), units.begin() + unfrozen);
  return groups;
}

/// Boundaries but 0 that a chain has while the first `from` to `to` units train; `from` units train afterwards.
std::set<int64_t> boundaries_of(models::Model& model, const std::string& chain, const std::vector<std::string>& units,
                                int64_t from, int64_t to) {
  std::set<int64_t> boundaries;
  for (int64_t k = from; k <= to; ++k) {
    model.unfreeze_only(head_and(units, k));
    boundaries.insert(model.boundary(chain));
  }
  model.unfreeze_only(head_and(units, from));
  boundaries.erase(0);
  return boundaries;
}

}  // namespace

std::vector<std::string> unfreezing_order(const models::Model& model, const UnfreezeOptions& options) {
  std::vector<std::string> units;
  for (const auto& chain : model.chains)
    for (const auto& block : chain.blocks)
      for (const auto& group : block.groups)
        if (std::find(units.begin(), units.end(), group) == units.end()) units.push_back(group);
  if (options.order == "last_first") std::reverse(units.begin(), units.end());
  return units;
}

std::set<std::string> most_trained(const models::Model& model, const FinetuneOptions& options) {
  const auto units = unfreezing_order(model, options.unfreeze);
  const auto n = static_cast<int64_t>(units.size());
  return head_and(units, options.full.when == "never" ? most_units(units, options.unfreeze) : n);
}

std::set<int64_t> boundaries_ahead(models::Model& model, const std::string& chain, const FinetuneOptions& options,
                                   const features::StoreOptions& store) {
  const auto units = unfreezing_order(model, options.unfreeze);
  return boundaries_of(model, chain, units, 0, std::min(store.units_ahead, most_units(units, options.unfreeze)));
}

struct Schedule::Machine {
  Machine(Setting setting, Hooks hooks)
      : s(std::move(setting)),
        hooks(std::move(hooks)),
        train_feed(s.model, *s.train.inputs),
        validation_feed(s.model, *s.validation.inputs),
        train_stream(stream_of(s.train, train_feed)),
        validation_stream(stream_of(s.validation, validation_feed)),
        train(*train_stream),
        validation(*validation_stream) {
    metric = s.options.metric.empty()
                 ? train::default_metric_of(s.model, train_feed, s.task, s.label_names, *s.train.examples)
                 : s.options.metric;
    auto known = train::metric_names(s.task);
    std::erase(known, "loss");  // the verdict and the plateau resample examples; the loss is known as a mean only
    GRAFT_CHECK(usage, std::find(known.begin(), known.end(), metric) != known.end(),
                "finetune.metric: `{}` is not a metric of the task {}; there are {}.", metric, s.task, listed(known));
    for (const auto lr : s.options.head.learning_rates)
      for (const auto decay : s.options.head.weight_decays) trials.push_back({lr, decay});
    GRAFT_CHECK(usage, !trials.empty(),
                "finetune.head: learning_rates and weight_decays need at least one value each.");
    const auto& head = s.options.head;
    if (head.closed_form && (s.task == "classification" || s.task == "multilabel" || s.task == "regression"))
      trials.push_back({*std::min_element(head.learning_rates.begin(), head.learning_rates.end()),
                        head.weight_decays.front(), true});
    if (s.options.batch_norm == "held")
      GRAFT_CHECK(
          usage, train::hold_batch_norm(s.model) > 0,
          "finetune.batch_norm: the source has no batch norm whose statistics could be held; leave it at source.");
    units = unfreezing_order(s.model, s.options.unfreeze);
    result = {{"metric", metric}, {"phases", Json::array()}};
    for (const auto& item : s.model.parameters_by_key())
      if (s.model.group_of(item.key()) == "head") head_start[item.key()] = item.value().detach().clone();
  }

  std::unique_ptr<train::Stream> stream_of(const Split& split, const features::Feed& feed) const {
    return train::task_stream(s.model, feed, s.task, s.label_names, *split.examples, split.alignment);
  }

  // --- what phases share ---------------------------------------------------------------------------------------

  double sign() const { return train::smaller_is_better(metric) ? -1 : 1; }

  int64_t max_units() const { return most_units(units, s.options.unfreeze); }

  std::set<std::string> trainable(int64_t unfrozen) const { return head_and(units, unfrozen); }

  /// A run's own folder keeps no store that nothing will read again.
  void drop_passed(int64_t unfrozen) {
    if (!s.store.folder.empty()) return;
    s.model.unfreeze_only(trainable(unfrozen));
    for (const auto& chain : s.model.chains)
      for (auto* feed : {&train_feed, &validation_feed})
        for (const auto& file : feed->forget_beyond(chain.name, s.model.boundary(chain.name))) io::remove_all(file);
  }

  /// Stores what crosses the boundaries that head training and the next unfreezings have, in one pass a split.
  void capture_for(int64_t unfrozen, int64_t ahead) {
    drop_passed(unfrozen);
    for (const auto& chain : s.model.chains) {
      auto boundaries = boundaries_of(s.model, chain.name, units, unfrozen, std::min(unfrozen + ahead, max_units()));
      std::erase_if(boundaries, [&](int64_t boundary) { return validation_feed.stored(chain.name, boundary); });
      if (boundaries.empty()) continue;
      const std::vector<int64_t> wanted(boundaries.begin(), boundaries.end());
      capture_split(chain.name, wanted, "training", *s.train.inputs, train_feed);
      capture_split(chain.name, wanted, "validation", *s.validation.inputs, validation_feed);
    }
    for (const auto& beside : s.beside) capture_beside(beside, unfrozen, ahead);
  }

  /// Where fewer of them are drawn in all unfreezings than there are, each is computed when it is drawn.
  void capture_beside(const Beside& beside, int64_t unfrozen, int64_t ahead) {
    const auto drawn =
        beside.per_example * static_cast<double>(s.train.inputs->size() * s.options.unfreeze.epochs * max_units());
    if (static_cast<double>(beside.inputs->size()) > drawn) return;
    for (const auto& chain : s.model.chains) {
      auto boundaries = boundaries_of(s.model, chain.name, units, unfrozen, std::min(unfrozen + ahead, max_units()));
      // At the end stands another head, which may read other places.
      std::erase_if(boundaries, [&](int64_t boundary) {
        return boundary == static_cast<int64_t>(chain.blocks.size()) || beside.feed->stored(chain.name, boundary);
      });
      if (!boundaries.empty())
        capture_split(chain.name, {boundaries.begin(), boundaries.end()}, "replayed", *beside.inputs, *beside.feed);
    }
  }

  void tell(const std::string& event) {
    if (hooks.reached && told.insert(event).second) hooks.reached(event);
  }

  void capture_split(const std::string& chain, const std::vector<int64_t>& boundaries, const std::string& split,
                     const features::Inputs& inputs, features::Feed& feed) {
    const auto reads = s.model.head->reads();
    const auto progress = [&](int64_t done, int64_t total) {
      tell("first_capture");
      hooks.progress->step("computing the frozen blocks once, " + split, done, total);
    };
    const bool in_parts = s.measured && &inputs == s.train.inputs;
    const auto captured =
        in_parts ? features::capture_in_parts(s.model, chain, boundaries, reads, inputs, *s.measured, s.features_folder,
                                              s.store, progress)
                 : features::capture(s.model, chain, boundaries, reads, inputs, s.features_folder, s.store, progress);
    for (size_t i = 0; i < boundaries.size(); ++i)
      if (captured.stores[i]) feed.use(chain, boundaries[i], *captured.stores[i]);
    for (const auto& note : captured.notes) hooks.progress->line("note: " + note);
    if (captured.rounding > 0)
      hooks.progress->line(fmt::format("stored as {}: off by at most {:.1e} of the largest value", s.store.precision,
                                       captured.rounding));
    if (captured.seconds > 0)
      hooks.progress->line(fmt::format("frozen blocks computed once for {} {} examples: {:.1f} s",
                                       captured.computed < inputs.size()
                                           ? fmt::format("{} of {}", captured.computed, inputs.size())
                                           : std::to_string(inputs.size()),
                                       split, captured.seconds));
    capture_seconds += captured.seconds;
  }

  double smallest_gain(const Predictions& predictions) const {
    const auto interval =
        train::bootstrap(train::example_count(predictions), seed_of(s.seed, {"finetune", "bootstrap"}),
                         [&](const auto& sample) { return train::metric_of(metric, predictions, sample); });
    return std::max(s.options.min_improvement, 0.5 * interval.standard_error);
  }

  Json saved_state() const {
    Json json{{"machine", io::write_value(state)}, {"result", result}};
    if (phase) json["phase"] = phase->state_json();
    for (const auto& term : s.terms) json["terms"].push_back(term->state());
    return json;
  }

  Tensors saved_tensors() const {
    Tensors tensors;
    if (phase) tensors = phase->state_tensors();
    else
      for (const auto& [key, value] : current_weights()) tensors["weights." + key] = value;
    for (const auto& [key, value] : best_head) tensors["sweep." + key] = value;
    if (state.statistics)
      for (const auto& item : s.model.buffers_by_key()) tensors["statistics." + item.key()] = item.value();
    return tensors;
  }

  /// Weights of what has been trained so far; everything else is the source's.
  Tensors current_weights() const {
    Tensors weights;
    const auto groups = state.stage == "done" || state.stage == "full" ? s.model.all_groups() : trainable(state.unit);
    for (const auto& items : {s.model.parameters_by_key(), s.model.buffers_by_key()})
      for (const auto& item : items)
        if (groups.contains(s.model.group_of(item.key()))) weights[item.key()] = item.value().detach();
    return weights;
  }

  void put(const Tensors& weights) {
    const torch::NoGradGuard no_grad;
    for (auto items : {s.model.parameters_by_key(), s.model.buffers_by_key()})
      for (auto& item : items)
        if (const auto found = weights.find(item.key()); found != weights.end()) item.value().copy_(found->second);
  }

  void save(bool must) {
    if (hooks.save) hooks.save(saved_state(), saved_tensors(), must);
  }

  /// Hashes of all that a phase must not change.
  std::string frozen_hash() const {
    Sha256 hash;
    for (const auto& items : {s.model.parameters_by_key(), s.model.buffers_by_key()})
      for (const auto& item : items) {
        if (s.model.trainable().contains(s.model.group_of(item.key()))) continue;
        const auto bytes = item.value().detach().cpu().contiguous();
        hash.update(item.key()).update(bytes.const_data_ptr(), bytes.nbytes());
      }
    return hash.hex();
  }

  PhasePlan plan(const std::string& name, const std::set<std::string>& groups) const {
    PhasePlan p;
    p.stage = "finetune";
    p.name = name;
    p.trainable = groups;
    p.weight_decay = s.training.weight_decay;
    p.metric = metric;
    return p;
  }

  /// Runs the phase in `phase`, saving as it goes; afterwards the model has the phase's best weights.
  void run_phase(const std::string& title) {
    const auto started = std::chrono::steady_clock::now();
    const double before = state.phase_seconds;
    train::PhaseHooks phase_hooks;
    int64_t steps_seen = 0;
    phase_hooks.step_done = [&](int64_t epoch, int64_t step, int64_t steps, double loss, int64_t examples) {
      steps_seen += examples;
      tell("first_step");
      const auto& so_far = phase->state();
      const auto epochs = phase->plan().epochs;
      hooks.progress->step(title, epoch * steps + step, epochs * steps,
                           fmt::format("epoch {}/{}  loss {:.4f}{}  {:.0f} examples/s", epoch + 1, epochs, loss,
                                       so_far.has_best ? fmt::format("  best {} {:.4f}", metric, so_far.best) : "",
                                       steps_seen / std::max(1e-3, seconds_since(started))));
    };
    phase_hooks.epoch_done = [&](const Json& epoch) {
      auto entry = epoch;
      entry["phase"] = phase->plan().name;
      hooks.journal("epoch", entry);
      if (state.stage != "head") watch(epoch["epoch"], epoch[metric]);
      if (quiet_epochs) return save_epoch(before, started);
      hooks.progress->line(fmt::format("{}, epoch {}/{}: loss {:.4f}, validation {} {:.4f}{}", title,
                                       epoch["epoch"].get<int64_t>(), phase->plan().epochs, epoch["loss"].get<double>(),
                                       metric, epoch[metric].get<double>(), epoch["best"].get<bool>() ? " *" : ""));
      save_epoch(before, started);
    };
    const auto keep = [&] {
      state.phase_seconds = before + seconds_since(started);
      save(true);
    };
    try {
      phase->run(phase_hooks);
    } catch (const Interrupted&) {
      keep();
      throw;
    } catch (const Error& e) {
      if (e.kind == Kind::numerical) keep();  // its sentence says where the best weights are
      throw;
    }
    state.phase_seconds = before + seconds_since(started);
    for (const auto& row : phase->state().history)
      if (row.contains("terms"))
        for (const auto& [name, term] : row["terms"].items()) {
          auto& seconds = result["terms"][name]["seconds"];
          seconds = (seconds.is_null() ? 0.0 : seconds.get<double>()) + term["seconds"].get<double>();
        }
    phase->restore_best();
  }

  void watch(int64_t epoch, double validation) {
    if (hooks.watched) hooks.watched({state.stage == "head" ? "head" : phase->plan().name, epoch, metric, validation});
  }

  /// Frozen means frozen: the hash of what `name` must not change, before it and after it.
  void expect_unchanged(const std::string& name, const std::string& before) {
    GRAFT_ASSERT(frozen_hash() == before, "a frozen tensor changed in phase {}", name);
    hooks.journal("frozen", {{"phase", name}, {"unchanged", true}, {"sha256", before}});
  }

  void save_epoch(double before, std::chrono::steady_clock::time_point started) {
    state.phase_seconds = before + seconds_since(started);
    save(false);
  }

  void end_phase(const std::string& name, double gain, Json more = Json::object()) {
    Json entry{{"phase", name},
               {"metric", metric},
               {"validation", state.metric},
               {"gain", gain},
               {"best_epoch", phase->state().best_epoch},
               {"epochs", phase->state().epoch},
               {"seconds", state.phase_seconds + capture_seconds},
               {"capture", Json{{"seconds", capture_seconds}}}};
    entry.update(more);
    if (hooks.retained)
      if (const auto kept = hooks.retained(name); !kept.empty()) entry["retained"] = kept;
    hooks.journal("phase_end", entry);
    result["phases"].push_back(entry);
    state.phase_seconds = capture_seconds = 0;
    state.in_phase = false;
    phase.reset();
  }

  // --- phase 1 -------------------------------------------------------------------------------------------------

  static std::string title_of(const Trial& trial) {
    return fmt::format("head, {}lr {:g}, decay {:g}", trial.closed_form ? "from the closed form, " : "",
                       trial.learning_rate, trial.weight_decay);
  }

  std::string trial_name(int64_t trial) const { return fmt::format("head {}", trial + 1); }

  std::unique_ptr<Phase> head_phase(int64_t trial, const train::Stream& stream, const train::Stream& judged,
                                    models::Model& model, const std::string& name,
                                    std::optional<double> start = {}) const {
    auto p = plan(name, {"head"});
    p.learning_rates["head"] = trials[trial].learning_rate;
    p.weight_decay = trials[trial].weight_decay;
    p.min_epochs = s.options.head.min_epochs;
    p.epochs = s.options.head.epochs;
    p.patience = s.options.head.patience;
    p.min_improvement = s.options.min_improvement;
    if (state.measured) p.start_metric = state.of_source;
    if (start) p.start_metric = start;
    const auto terms = &stream == &train ? s.terms : decltype(s.terms){};  // the verdict asks what features are worth
    return std::make_unique<Phase>(model, p, s.training, stream, judged, s.seed, terms);
  }

  /// The same from its beginning: with the closed form, its weights compete with what is learned from there.
  std::unique_ptr<Phase> started_head_phase(int64_t trial, const train::Stream& stream, const train::Stream& judged,
                                            models::Model& model, const std::string& name) const {
    const bool bf16 = s.training.bf16();
    const auto rows = s.training.micro_batch_tokens;
    std::optional<double> start;
    if (trials[trial].closed_form &&
        closed_form_start(model, stream, rows, bf16, seed_of(s.seed, {"finetune", "closed form"})))
      start = train::metric_of(metric, train::evaluate(model, judged, rows, bf16));
    return head_phase(trial, stream, judged, model, name, start);
  }

  /// A language head is not fresh: what the source can do already competes with what the head learns.
  void measure_source() {
    if (s.task != "causal_lm" || state.measured) return;
    const auto predictions = train::evaluate(s.model, validation, s.training.micro_batch_tokens, s.training.bf16());
    state.of_source = train::metric_of(metric, predictions);
    state.measured = true;
    result["source"] = train::all_metrics(predictions);
    hooks.journal("source", result["source"]);
    hooks.progress->line(fmt::format("the source as it is: validation {} {:.4f}", metric, state.of_source));
  }

  /// AdaBN: the state before phase 1. Stores are named by what the model holds, so they follow.
  void estimate_statistics() {
    if (s.options.batch_norm != "target" || state.statistics) return;
    const auto started = std::chrono::steady_clock::now();
    const auto norms = train::estimate_batch_norm(
        s.model, *s.train.inputs, s.store.capture_tokens,
        [&](int64_t done, int64_t total) { hooks.progress->step("statistics of batch norms", done, total); });
    GRAFT_CHECK(usage, norms > 0,
                "finetune.batch_norm: the source has no batch norm whose statistics could be estimated; leave it at "
                "source.");
    state.statistics = true;
    hooks.journal("batch_norm",
                  {{"norms", norms}, {"examples", s.train.inputs->size()}, {"seconds", seconds_since(started)}});
    hooks.progress->line(fmt::format("statistics of {} batch norms estimated on the {} training examples (AdaBN)",
                                     norms, s.train.inputs->size()));
  }

  /// Whether the head finds all that it reads in stores.
  static bool reads_stores_alone(const models::Model& model, const features::Feed& feed) {
    return std::all_of(model.chains.begin(), model.chains.end(), [&](const auto& chain) {
      return feed.stored(chain.name, static_cast<int64_t>(chain.blocks.size()));
    });
  }

  void head() {
    estimate_statistics();
    hooks.progress->title(fmt::format("Phase 1: the head only ({} settings)", trials.size()));
    s.model.unfreeze_only({"head"});
    capture_for(0, s.store.units_ahead);
    measure_source();
    quiet_epochs = trials.size() > 1;
    const auto frozen = frozen_hash();
    std::optional<models::HeadOnCpu> on_cpu;
    if (s.terms.empty() && reads_stores_alone(s.model, train_feed) && reads_stores_alone(s.model, validation_feed))
      on_cpu.emplace(s.model);
    for (; state.trial < static_cast<int64_t>(trials.size()); ++state.trial) {
      if (!state.in_phase) {
        put(head_start);
        phase = started_head_phase(state.trial, train, validation, s.model, trial_name(state.trial));
        state.in_phase = true;
      }
      run_phase(title_of(trials[state.trial]));
      const double value = phase->state().best;
      // A learned head is the better start for what follows, unless the closed form is better beyond chance.
      const double lead = trials[state.trial].closed_form ? 2 * smallest_gain(phase->predictions()) : 0;
      const bool best = state.best_trial < 0 || sign() * (value - state.best_trial_metric) > lead;
      hooks.journal("trial", {{"learning_rate", trials[state.trial].learning_rate},
                              {"weight_decay", trials[state.trial].weight_decay},
                              {"closed_form", trials[state.trial].closed_form},
                              {metric, value},
                              {"best", best}});
      hooks.progress->line(
          fmt::format("{}: validation {} {:.4f}{}", title_of(trials[state.trial]), metric, value, best ? " *" : ""));
      if (best) {
        state.best_trial = state.trial;
        state.best_trial_metric = value;
        best_head = copy_of_head();
      }
      if (state.trial + 1 < static_cast<int64_t>(trials.size())) {
        state.in_phase = false;
        continue;
      }
      break;
    }
    quiet_epochs = false;
    on_cpu.reset();
    expect_unchanged("head", frozen);
    put(best_head);
    state.metric = state.after_head = state.best_trial_metric;
    const auto& best = trials[state.best_trial];
    end_phase("head", state.measured ? sign() * (state.metric - state.of_source) : 0,
              {{"learning_rate", best.learning_rate},
               {"weight_decay", best.weight_decay},
               {"closed_form", best.closed_form},
               {"trials", trials.size()}});
    if (s.options.head.verdict && s.task != "causal_lm") judge();  // it asks whether features tell labels apart
    if (!s.keep_head) best_head.clear();
    watch(0, state.metric);
    state.stage = max_units() > 0 ? "unfreeze" : "full";
    save(true);
  }

  Tensors copy_of_head() const {
    Tensors weights;
    for (const auto& item : s.model.parameters_by_key())
      if (s.model.group_of(item.key()) == "head") weights[item.key()] = item.value().detach().clone();
    return weights;
  }

  /// The head, trained with the same settings on a sample's features; over the sampled validation examples.
  Predictions trained_on_sample(models::Model& model, const SampledSplit& some, const SampledSplit& judged,
                                const std::string& name) {
    model.unfreeze_only({"head"});
    features::Feed feed(model, some.inputs), judged_feed(model, judged.inputs);
    for (const auto& chain : model.chains) {
      const auto end = static_cast<int64_t>(chain.blocks.size());
      for (const auto& [inputs, target] :
           {std::pair<const features::Inputs*, features::Feed*>{&some.inputs, &feed}, {&judged.inputs, &judged_feed}}) {
        const auto captured = features::capture(
            model, chain.name, {end}, model.head->reads(), *inputs, verdict_folder(), s.store,
            [&](int64_t done, int64_t total) { hooks.progress->step("verdict, " + name, done, total); });
        if (captured.stores[0]) target->use(chain.name, end, *captured.stores[0]);
      }
    }
    const Supervised stream(model, feed, s.task, s.label_names, some.targets, some.split.alignment.first_tokens);
    const Supervised judge_stream(model, judged_feed, s.task, s.label_names, judged.targets,
                                  judged.split.alignment.first_tokens);
    std::optional<models::HeadOnCpu> on_cpu;
    if (reads_stores_alone(model, feed) && reads_stores_alone(model, judged_feed)) on_cpu.emplace(model);
    const auto trained = started_head_phase(state.best_trial, stream, judge_stream, model, name);
    trained->run({});
    trained->restore_best();
    return trained->predictions();
  }

  /// The head just trained, or, where the splits are larger than the sample, one trained on as much as the random copy's.
  Predictions on_features(const SampledSplit& some, const SampledSplit& judged) {
    if (some.inputs.size() == s.train.inputs->size() && judged.inputs.size() == s.validation.inputs->size())
      return train::evaluate(s.model, validation, s.training.micro_batch_tokens, s.training.bf16());
    const auto keep = copy_of_head();
    put(head_start);
    auto predictions = trained_on_sample(s.model, some, judged, "its features");
    put(keep);
    return predictions;
  }

  /// Stores of samples and of the random copy, which the verdict alone reads.
  std::filesystem::path verdict_folder() const {
    return s.store.folder.empty() ? s.features_folder / "verdict" : s.features_folder;
  }

  void judge() {
    const auto started = std::chrono::steady_clock::now();
    const auto pick = [&](const Split& split, const char* purpose) {
      return SampledSplit(split, train::sample(split.inputs->size(), kVerdictExamples,
                                               seed_of(s.seed, {"finetune", "verdict", purpose})));
    };
    const auto some = pick(s.train, "train"), judged = pick(s.validation, "validation");
    const auto with_features = on_features(some, judged);
    const auto random_model = s.random_copy();
    if (state.statistics) train::estimate_batch_norm(*random_model, *s.train.inputs, s.store.capture_tokens);
    const auto with_random = trained_on_sample(*random_model, some, judged, "a random copy");
    s.model.unfreeze_only({"head"});
    features::Feed none(s.model, some.inputs);
    const auto targets =
        Supervised(s.model, none, s.task, s.label_names, some.targets, some.split.alignment.first_tokens).targets();
    auto verdict = finetune::verdict(metric, with_features, majority_predictions(targets, with_features), with_random,
                                     seed_of(s.seed, {"finetune", "verdict"}));
    if (s.store.folder.empty()) io::remove_all(verdict_folder());
    verdict["seconds"] = seconds_since(started);
    hooks.journal("verdict", verdict);
    result["verdict"] = verdict;
    hooks.progress->line(verdict["sentence"].get<std::string>() + " " + verdict["advice"].get<std::string>());
  }

  // --- phase 2 -------------------------------------------------------------------------------------------------

  std::unique_ptr<Phase> unfreeze_phase() const {
    auto p = plan(fmt::format("unfreeze {}", state.unit), trainable(state.unit));
    const auto& o = s.options.unfreeze;
    p.learning_rates["head"] = o.head_learning_rate;
    double rate = o.learning_rate;
    for (int64_t k = 0; k < state.unit; ++k, rate /= o.divisor) p.learning_rates[units[k]] = rate;
    p.epochs = o.epochs;
    p.min_improvement = s.options.min_improvement;
    p.start_metric = state.metric;
    return std::make_unique<Phase>(s.model, p, s.training, train, validation, s.seed, s.terms);
  }

  void unfreeze() {
    while (state.unit < max_units() || state.in_phase) {
      if (!state.in_phase) {
        ++state.unit;
        s.model.unfreeze_only(trainable(state.unit));
        hooks.progress->title(
            fmt::format("Phase 2: unfreezing {} ({} of at most {})", units[state.unit - 1], state.unit, max_units()));
        capture_for(state.unit, 0);
        phase = unfreeze_phase();
        state.in_phase = true;
        save(true);
      } else {
        capture_for(state.unit, 0);
      }
      const double before = phase->plan().start_metric.value();
      const auto frozen = frozen_hash();
      run_phase(units[state.unit - 1]);
      expect_unchanged(fmt::format("unfreeze {}", state.unit), frozen);
      const double needed = smallest_gain(phase->predictions());
      state.metric = phase->state().best;
      const double gain = sign() * (state.metric - before);
      const bool gained = gain > needed;
      state.units_without_gain = gained ? 0 : state.units_without_gain + 1;
      end_phase(fmt::format("unfreeze {}", state.unit), gain,
                {{"unit", units[state.unit - 1]}, {"needed", needed}, {"improved", gained}});
      const bool plateau =
          s.options.unfreeze.patience_units > 0 && state.units_without_gain >= s.options.unfreeze.patience_units;
      const bool last = state.unit >= max_units();
      const auto reason =
          plateau && !last
              ? fmt::format("{} brought {:+.4f}, less than the {:.4f} that counts: the metric has reached its plateau",
                            units[state.unit - 1], gain, needed)
          : last ? fmt::format("{} brought {:+.4f}; there is nothing more to unfreeze by the recipe",
                               units[state.unit - 1], gain)
                 : fmt::format("{} brought {:+.4f} ({:.4f} counts): the next unit is unfrozen", units[state.unit - 1],
                               gain, needed);
      hooks.journal("decision", {{"about", "unfreezing"}, {"go_on", !plateau && !last}, {"reason", reason}});
      hooks.progress->line(reason);
      if (plateau || last) break;
      save(true);
    }
    state.stage = "full";
    save(true);
  }

  // --- phase 3 -------------------------------------------------------------------------------------------------

  bool full_is_due() {
    const auto& o = s.options.full;
    const auto n = s.train.inputs->size();
    const auto groups = static_cast<int64_t>(units.size()) + 1;
    const double gained = sign() * (state.metric - state.after_head);
    bool due = o.when == "always";
    std::string reason = due ? "the recipe asks for it" : "the recipe forbids it";
    if (o.when == "auto") {
      if (n < o.min_examples)
        reason = fmt::format("{} training examples are fewer than the {} that it wants", n, o.min_examples);
      else if (n < o.min_examples_per_group * groups)
        reason = fmt::format("{} training examples for {} groups of parameters are fewer than {} a group", n, groups,
                             o.min_examples_per_group);
      else if (state.unit > 0 && gained <= s.options.min_improvement)
        reason = fmt::format(
            "unfreezing brought {:+.4f} over the head alone, so deeper training is not expected to bring more", gained);
      else
        due = true,
        reason = fmt::format("{} training examples for {} groups, and unfreezing brought {:+.4f}", n, groups, gained);
    }
    hooks.journal("decision", {{"about", "full fine-tuning"}, {"go_on", due}, {"reason", reason}});
    hooks.progress->line(fmt::format("full fine-tuning: {} ({})", due ? "yes" : "no", reason));
    return due;
  }

  std::unique_ptr<Phase> full_phase() const {
    auto p = plan("full", s.model.all_groups());
    for (const auto& group : p.trainable) p.learning_rates[group] = s.options.full.learning_rate;
    p.epochs = s.options.full.epochs;
    p.patience = s.options.full.patience;
    p.min_improvement = s.options.min_improvement;
    p.start_metric = state.metric;
    return std::make_unique<Phase>(s.model, p, s.training, train, validation, s.seed, s.terms);
  }

  void full() {
    if (!state.in_phase) {
      if (full_is_due()) {
        hooks.progress->title("Phase 3: full fine-tuning");
        drop_passed(static_cast<int64_t>(units.size()));
        phase = full_phase();
        state.in_phase = true;
        save(true);
      }
    }
    if (state.in_phase) {
      const double before = phase->plan().start_metric.value();
      run_phase("full");
      state.metric = phase->state().best;
      end_phase("full", sign() * (state.metric - before));
    }
    state.stage = "done";
    result["validation"] = state.metric;
    result["units"] = state.unit;
    save(true);
  }

  void run() {
    if (state.stage == "head") head();
    if (state.stage == "unfreeze") unfreeze();
    if (state.stage == "full") full();
    s.model.eval();
  }

  void resume(const Json& json, const Tensors& tensors) {
    std::vector<std::string> mistakes;
    io::read_value(json.at("machine"), state, "state", mistakes);
    GRAFT_CHECK(disk, mistakes.empty(), "the checkpoint's state cannot be read: {}", listed(mistakes));
    result = json.at("result");
    Tensors weights, statistics;
    for (const auto& [name, value] : tensors) {
      if (name.starts_with("weights.")) weights[name.substr(8)] = value;
      if (name.starts_with("statistics.")) statistics[name.substr(11)] = value;
      if (name.starts_with("sweep.")) best_head[name.substr(6)] = value.clone();
    }
    put(statistics);
    put(weights);
    if (const auto terms = json.find("terms"); terms != json.end())
      for (size_t i = 0; i < std::min(s.terms.size(), terms->size()); ++i)
        if (!(*terms)[i].is_null()) s.terms[i]->load_state((*terms)[i]);
    if (!state.in_phase) return;
    if (state.stage == "head") phase = head_phase(state.trial, train, validation, s.model, trial_name(state.trial));
    else if (state.stage == "unfreeze") phase = unfreeze_phase();
    else phase = full_phase();
    phase->resume(json.at("phase"), tensors);
  }

  Setting s;
  Hooks hooks;
  features::Feed train_feed, validation_feed;
  std::unique_ptr<train::Stream> train_stream, validation_stream;
  const train::Stream &train, &validation;
  std::string metric;
  std::vector<Trial> trials;
  std::vector<std::string> units;  // in the order of unfreezing
  State state;
  std::unique_ptr<Phase> phase;
  Tensors head_start, best_head;
  Json result;
  double capture_seconds = 0;
  bool quiet_epochs = false;
  std::set<std::string> told;
};

Schedule::Schedule(Setting setting, Hooks hooks)
    : machine_(std::make_unique<Machine>(std::move(setting), std::move(hooks))) {}
Schedule::~Schedule() = default;
void Schedule::resume(const Json& state, const Tensors& tensors) { machine_->resume(state, tensors); }
void Schedule::run() { machine_->run(); }
const Json& Schedule::result() const { return machine_->result; }
const Tensors& Schedule::head_alone() const { return machine_->best_head; }

}  // namespace graft::finetune
