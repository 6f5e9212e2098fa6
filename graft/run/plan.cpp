// --dry-run: what a run would do, what it would hold in memory, and from some measured seconds what it would cost.
// Memory comes first, from shapes and two small examples: only what fits is timed.
#include <algorithm>
#include <chrono>
#include <numeric>

#include "graft/core/error.h"
#include "graft/core/interrupt.h"
#include "graft/core/process.h"
#include "graft/core/random.h"
#include "graft/features/feed.h"
#include "graft/finetune/schedule.h"
#include "graft/models/device.h"
#include "graft/models/lora.h"
#include "graft/models/weight_type.h"
#include "graft/nn/fresh.h"
#include "graft/run/find_source.h"
#include "graft/run/machine.h"
#include "graft/run/memory.h"
#include "graft/run/pipeline.h"
#include "graft/run/selection.h"
#include "graft/run/task_inputs.h"
#include "graft/train/allocations.h"
#include "graft/train/batches.h"
#include "graft/train/ends.h"
#include "graft/train/phase.h"
#include "graft/train/supervised.h"

namespace graft::run {
namespace {

using Clock = std::chrono::steady_clock;
using Batch = std::vector<int64_t>;
using Batches = std::vector<Batch>;

constexpr int64_t kVerdictExamples = 2000;  // as graft/finetune has it
constexpr int64_t kAdviceRank = 16;
constexpr double kBudget = 1;  // seconds for one measurement

double seconds_of(const std::function<void()>& work) {
  models::wait_for_device();
  const auto start = Clock::now();
  work();
  models::wait_for_device();
  return std::chrono::duration<double>(Clock::now() - start).count();
}

double rows_of(const train::Stream& stream, const Batch& batch) {
  double rows = 0;
  for (const auto example : batch) rows += static_cast<double>(stream.rows(example));
  return rows;
}

double rows_of(const train::Stream& stream) {
  double rows = 0;
  for (int64_t i = 0; i < stream.size(); ++i) rows += static_cast<double>(stream.rows(i));
  return rows;
}

/// Seconds per row of `work`, which returns its own seconds, on batches spread over the split's lengths.
double seconds_per_row(const Batches& batches, const train::Stream& stream,
                       const std::function<double(const Batch&)>& work) {
  double seconds = 0, rows = 0;
  work(batches[batches.size() / 2]);  // the first pass also allocates
  for (size_t i = 0; i < batches.size() && seconds < kBudget; i += std::max<size_t>(1, batches.size() / 16)) {
    stop_if_interrupted();
    seconds += work(batches[i]);
    rows += rows_of(stream, batches[i]);
  }
  return rows > 0 ? seconds / rows : 0;
}

/// A phase as the schedule will run it.
struct PlannedPhase {
  std::string name;
  std::set<std::string> trainable;
  int64_t units = 0;
  int64_t most_epochs = 1, fewest_epochs = 0;
  bool stored = false;  // what enters is read, not computed
  double once = 0;      // seconds beside its epochs
};

/// One model with the data that it trains on, and the phases that it goes through.
struct Section {
  const Recipe& recipe;
  train::TrainOptions training;
  std::shared_ptr<models::Model> model;
  const train::Stream *train = nullptr, *validation = nullptr;
  std::vector<PlannedPhase> phases;
  MemoryShape memory;

  MemoryChoices choices() const {
    MemoryChoices c{.weights = training.weights,
                    .checkpointing = training.activation_checkpointing,
                    .report = recipe.retain.report,
                    .micro_batch_tokens = training.micro_batch_tokens};
    return c;
  }

  int64_t trainable_parameters() const {
    int64_t count = 0;
    for (const auto& item : model->parameters_by_key())
      if (model->trainable().contains(model->group_of(item.key()))) count += item.value().numel();
    return count;
  }

  int64_t gradient_bytes() const {
    int64_t bytes = 0;
    for (const auto& item : model->parameters_by_key())
      if (item.value().grad().defined()) bytes += static_cast<int64_t>(item.value().grad().nbytes());
    return bytes;
  }

  /// Forward and loss of some examples, with the graph that the backward pass needs.
  train::Tensor loss_of(std::map<std::string, train::Activations> entering, const Batch& part, bool checkpointed) {
    const train::Autocast autocast(model->device(), training.bf16());
    const auto outputs = train::forward_behind(*model, std::move(entering), train->reads(part, 0), checkpointed);
    return train->loss_sum(outputs, part, 0);
  }

  /// Bytes that a step allocates for its examples, its gradients of weights apart: they may be more than can be had.
  double kept_bytes(const Batch& part, bool checkpointed) {
    const train::Allocations allocations;
    const auto loss = loss_of(train->enter(part, 0), part, checkpointed);
    return static_cast<double>(allocations.peak());
  }

  double evaluation_bytes(const Batch& part) {
    const torch::NoGradGuard no_grad;
    model->eval();
    const train::Allocations allocations;
    loss_of(train->enter(part, 0), part, false);
    return static_cast<double>(allocations.peak());
  }

  /// A line through what a short and a long example take.
  Growth growth(const std::function<double(const Batch&)>& bytes) {
    Batch order(train->size());
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return train->rows(a) < train->rows(b); });
    const Batch small{order[order.size() / 2]};
    const Batch large = train->rows(order.back()) > train->rows(small[0]) || order.size() < 2
                            ? Batch{order.back()}
                            : Batch{order.back(), order[order.size() - 2]};
    const double rows = rows_of(*train, small), more = rows_of(*train, large), b = bytes(large);
    if (more <= rows) return {0, b / more};
    const double slope = std::max(0.0, (b - bytes(small)) / (more - rows));
    return {std::max(0.0, b - slope * more), slope};
  }

  /// Shapes of all phases, and with weights in the model what their activations take.
  void shape_phases(bool has_weights, bool second_model_in_head) {
    memory.phases.clear();
    for (const auto& phase : phases) {
      model->unfreeze_only(phase.trainable);
      PhaseShape shape{.phase = phase.name, .trainable = phase.trainable, .units = phase.units};
      for (int64_t i = 0; i < train->size(); ++i) shape.longest = std::max(shape.longest, train->rows(i));
      for (const auto& batch : train::epoch_batches(*train, training.batch_size, recipe.seed))
        shape.rows = std::max(shape.rows, static_cast<int64_t>(rows_of(*train, batch)));
      shape.evaluation_rows = std::max(shape.longest, std::min<int64_t>(4096, training.micro_batch_tokens));
      shape.second_model = second_model_in_head && phase.name == "head";
      if (has_weights) {
        model->train();
        shape.step = growth([&](const Batch& part) { return kept_bytes(part, false); });
        shape.checkpointed = growth([&](const Batch& part) { return kept_bytes(part, true); });
        shape.evaluation = growth([&](const Batch& part) { return evaluation_bytes(part); });
      }
      memory.phases.push_back(shape);
    }
  }

  /// Seconds of one epoch, and what its largest step really took.
  double epoch_seconds(const PlannedPhase& phase, PhaseShape& shape) {
    train::AdamW optimizer({.stochastic = training.weights == "bfloat16_stochastic"});
    for (const auto& item : model->parameters_by_key())
      if (model->trainable().contains(model->group_of(item.key()))) optimizer.add(item.key(), item.value(), 0, 0);
    model->train();
    const auto entered = [&](const Batch& part, double& seconds) {
      std::map<std::string, train::Activations> entering;
      const auto took = seconds_of([&] { entering = train->enter(part, 0); });
      if (!phase.stored) seconds += took;
      return entering;
    };
    auto batches = train::epoch_batches(*train, training.batch_size, recipe.seed);
    const auto largest = std::max_element(batches.begin(), batches.end(), [&](const Batch& a, const Batch& b) {
      return rows_of(*train, a) < rows_of(*train, b);
    });
    const auto step = [&](const Batch& batch) {
      double seconds = 0;
      const auto parts = train::micro_batches(*train, batch, training.micro_batch_tokens);
      optimizer.zero_grad();
      for (const auto& part : parts) {
        auto entering = entered(part, seconds);
        seconds += seconds_of([&] {
          const auto weight = std::max(1.0, train->weight(batch, 0));
          const auto loss = loss_of(std::move(entering), part, training.activation_checkpointing) / weight;
          if (loss.requires_grad()) loss.backward();
        });
      }
      seconds += seconds_of([&] {
        optimizer.clip_gradients(training.max_gradient_norm);
        optimizer.step(1);
      });
      return seconds;
    };
    {
      step(*largest);
      optimizer.zero_grad();
      const auto parts = train::micro_batches(*train, *largest, training.micro_batch_tokens);
      const auto entering = train->enter(parts.front(), 0);  // outlives the counting, which knows its own blocks alone
      const train::Allocations allocations;
      const auto loss = loss_of(entering, parts.front(), training.activation_checkpointing);
      if (loss.requires_grad()) loss.backward();
      const auto taken = static_cast<double>(allocations.peak() - gradient_bytes());
      (training.activation_checkpointing ? shape.checkpointed : shape.step) = {std::max(0.0, taken), 0};
    }
    double seconds = seconds_per_row(batches, *train, step) * rows_of(*train);
    optimizer.zero_grad();
    model->eval();
    const torch::NoGradGuard no_grad;
    const auto judged = std::min<int64_t>(4096, training.micro_batch_tokens);
    const auto per_row = seconds_per_row(train::batches_by_rows(*train, judged), *train, [&](const Batch& part) {
      double took = 0;
      auto entering = entered(part, took);
      return took + seconds_of([&] { loss_of(std::move(entering), part, false); });
    });
    evaluation_seconds = per_row * rows_of(*validation);
    return seconds + evaluation_seconds;
  }

  double evaluation_seconds = 0;  // of the validation split, behind the boundary of the phase timed last
};

/// Where the file holds what the model keeps, it is mapped.
bool holds(const models::Source& source, io::DType type) {
  if (!source.checkpoint.safe) return false;
  int64_t of_type = 0, all = 0;
  for (const auto& item : source.checkpoint.tensors) {
    const auto count = io::element_count(item.second.shape);
    all += count;
    if (item.second.dtype == type) of_type += count;
  }
  return 2 * of_type > all;
}

/// A model without values, for its shapes.
std::shared_ptr<models::Model> outline(const models::Source& source, const models::Task& task, torch::Dtype weights) {
  const nn::PutOff values;
  auto model = source.architecture->create(source.config, task);
  models::keep_weights_as(*model, weights, false);
  return model;
}

std::map<std::string, Elements> elements_of(const models::Model& model) {
  std::map<std::string, Elements> groups;
  for (const auto& item : model.parameters_by_key()) {
    auto& group = groups[model.group_of(item.key())];
    (item.value().dim() == 2 ? group.matrices : group.others) += item.value().numel();
  }
  return groups;
}

struct Planner {
  Planner(const Recipe& recipe, Purpose purpose, report::Progress& progress)
      : recipe(recipe), purpose(purpose), progress(progress) {}

  torch::Dtype weights() const { return models::weight_type_named(recipe.train.weights); }

  MemoryShape shape_of(const models::Source& source, const models::Task& task) const {
    auto model = outline(source, task, weights());
    MemoryShape shape;
    const auto has_matrices = [](const auto& groups) {
      return std::any_of(groups.begin(), groups.end(),
                         [](const auto& item) { return item.first != "head" && item.second.matrices > 0; });
    };
    if (recipe.lora.rank > 0) {
      models::attach_lora(*model, recipe.lora, 0);
    } else if (has_matrices(elements_of(*model))) {
      auto other = outline(source, task, weights());
      models::LoraOptions lora;
      lora.rank = shape.adapter_rank = kAdviceRank;
      models::attach_lora(*other, lora, 0);
      const std::string suffix = " adapters";
      for (const auto& [group, own] : elements_of(*other))
        if (group.ends_with(suffix))
          shape.adapters[group.substr(0, group.size() - suffix.size())] = own.matrices + own.others;
    }
    shape.groups = elements_of(*model);
    release_freed_memory();  // of the adaptation, which was timed before
    shape.process = static_cast<int64_t>(held_memory());
    shape.mapped = holds(source, io::DType::f32);
    shape.mapped_half = holds(source, io::DType::bf16);
    return shape;
  }

  static int64_t added_since(uint64_t before) {
    const auto now = held_memory();
    return now > before ? static_cast<int64_t>(now - before) : 0;
  }

  int64_t available() const {
    if (models::compute_device().is_cuda()) return models::device_room();
    const auto more = available_memory();
    return more > static_cast<uint64_t>(INT64_MAX / 2) ? INT64_MAX / 2 : static_cast<int64_t>(more + held_memory());
  }

  int64_t bytes_of_weights(const MemoryShape& shape) const {
    int64_t bytes = shape.process;
    for (const auto& item : shape.groups)
      bytes += item.second.matrices * (recipe.train.weights == "float32" ? 4 : 2) + item.second.others * 4;
    return bytes;
  }

  /// What all phases share: verdict, and seconds where it fits.
  void conclude(Section& section, const std::string& what) {
    const auto verdict = memory_verdict(section.memory, section.choices(), room);
    const bool it_fits = verdict.at("fits").get<bool>();
    fits = fits && it_fits;
    const auto needed = verdict.at("needed_bytes").get<int64_t>();
    if (!plan.contains("memory") || needed > plan["memory"]["needed_bytes"].get<int64_t>() || !it_fits)
      plan["memory"] = verdict;
    for (size_t i = 0; i < section.phases.size(); ++i) {
      const auto& phase = section.phases[i];
      auto& shape = section.memory.phases[i];
      section.model->unfreeze_only(phase.trainable);
      Json row{{"phase", phase.name},
               {"epochs", phase.most_epochs},
               {"trainable_parameters", section.trainable_parameters()}};
      if (it_fits) {
        progress.step("timing " + what, static_cast<int64_t>(i), static_cast<int64_t>(section.phases.size()));
        const auto seconds = section.epoch_seconds(phase, shape);
        row["seconds_per_epoch"] = seconds;
        row["seconds_once"] = phase.once;
        low += phase.once + static_cast<double>(phase.fewest_epochs) * seconds;
        high += phase.once + static_cast<double>(phase.most_epochs) * seconds;
      }
      const auto bytes = bytes_of(section.memory, shape, section.choices());
      row["memory"] = to_json(bytes);
      peak = std::max(peak, bytes.total() - bytes.mapped);
      plan["phases"].push_back(row);
    }
  }

  void adaptation() {
    auto source = open();
    const models::Task task{source.architecture->language_task};
    GRAFT_CHECK(model, !task.kind.empty(), "{}: graft has no objective to adapt a {} with. Leave adapt.corpus out.",
                source.name, source.architecture->model_type);
    const auto kind = task_inputs(source, recipe.adapt.max_length, recipe.images, recipe.language);
    kind->settle_adaptation(source, recipe.adapt);
    auto memory = shape_of(source, task);
    const bool loads = bytes_of_weights(memory) < room;
    const auto loaded = loads ? models::load(source, task, seed_of(recipe.seed, {"adapt", "head"}), true, weights())
                              : models::Loaded{outline(source, task, weights()), {}};
    if (recipe.lora.rank > 0)
      models::attach_lora(*loaded.model, recipe.lora, seed_of(recipe.seed, {"adapt", "lora"}), loaded.report.fresh);
    const auto before_data = held_memory();
    const auto objective = kind->objective(*loaded.model, source, recipe.adapt, recipe.seed, [](int64_t, int64_t) {});
    memory.process += added_since(before_data);
    Section section{.recipe = recipe,
                    .training = recipe.train,
                    .model = loaded.model,
                    .train = objective.training.get(),
                    .validation = objective.held_out.get(),
                    .memory = memory};
    section.training.batch_size = recipe.adapt.batch_size;
    const bool fresh = !loaded.report.fresh.empty();
    if (fresh && recipe.adapt.head_epochs > 0)
      section.phases.push_back(
          {"adapt head", {"head"}, 0, recipe.adapt.head_epochs, recipe.adapt.head_epochs, false, 0});
    section.phases.push_back(
        {"adapt", loaded.model->all_groups(), 0, recipe.adapt.epochs,
         recipe.adapt.patience > 0 ? std::min(recipe.adapt.epochs, recipe.adapt.patience) : recipe.adapt.epochs, false,
         0});
    section.shape_phases(loads, false);
    conclude(section, "the adaptation");
    plan["source"] = source.description(*loaded.model);
    plan["adapt"] = objective.counts;
    // The held-out loss before, and with a fresh head before that.
    extra["held-out loss before adapt"] = section.evaluation_seconds;
    const auto bytes = weight_bytes(*loaded.model);
    disk["adapted"] = bytes;
    disk["checkpoints"] = 2 * (2 * bytes + 2 * parameters(*loaded.model) * 4);
  }

  void finetuning() {
    auto source = open();
    const auto kind = task_inputs(source, recipe.max_length, recipe.images, recipe.language);
    kind->settle(source);
    auto dataset = kind->read(recipe.data, recipe.seed, {});
    progress.line(data::summary_text(data::summary(dataset)));
    const models::Task task{dataset.task,
                            dataset.task == "regression" ? 1 : static_cast<int64_t>(dataset.label_names.size())};
    auto memory = shape_of(source, task);
    const bool loads = bytes_of_weights(memory) < room;
    const bool keep_head = task.kind == "causal_lm" || models::label_names(source.config) == dataset.label_names;
    const auto loaded =
        loads ? models::load(source, task, seed_of(recipe.seed, {"finetune", "head"}), keep_head, weights())
              : models::Loaded{outline(source, task, weights()), {}};
    auto& model = *loaded.model;
    if (recipe.lora.rank > 0)
      models::attach_lora(model, recipe.lora, seed_of(recipe.seed, {"finetune", "lora"}), loaded.report.fresh);
    const auto before_data = held_memory();
    Wanted wanted{.split = "training", .task = dataset.task};
    if (recipe.data.bad_rows == "skip") wanted.bad_rows = data::BadRows::skip;
    wanted.training_seed = recipe.seed;
    const auto train = kind->prepare(model, dataset.train, wanted);
    wanted.training_seed = {};
    wanted.split = "validation";
    const auto validation = kind->prepare(model, dataset.validation, wanted);
    const features::Feed train_feed(model, *train.inputs), validation_feed(model, *validation.inputs);
    const auto train_stream = train::task_stream(model, train_feed, dataset.task, dataset.label_names,
                                                 train.repeated ? *train.repeated : dataset.train, train.alignment);
    const auto validation_stream = train::task_stream(model, validation_feed, dataset.task, dataset.label_names,
                                                      dataset.validation, validation.alignment);
    memory.process += added_since(before_data);
    memory.anchors = (recipe.retain.ewc.strength > 0 ? 2 : 0) + (recipe.retain.l2sp > 0 ? 1 : 0);
    Section section{.recipe = recipe,
                    .training = recipe.train,
                    .model = loaded.model,
                    .train = train_stream.get(),
                    .validation = validation_stream.get(),
                    .memory = memory};

    // What a pass of the whole model over a row costs: the capture, the report of what is kept, the test.
    model.unfreeze_only(model.all_groups());
    const double rows = rows_of(*train_stream), validation_rows = rows_of(*validation_stream);
    const auto share = [](int64_t some, int64_t all) {
      return all > 0 ? std::min(1.0, static_cast<double>(some) / static_cast<double>(all)) : 0.0;
    };

    const auto& f = recipe.finetune;
    const auto units = finetune::unfreezing_order(model, f.unfreeze);
    const auto unfrozen = f.unfreeze.max_units < 0 ? static_cast<int64_t>(units.size())
                                                   : std::min(static_cast<int64_t>(units.size()), f.unfreeze.max_units);
    const auto trials = static_cast<int64_t>(f.head.learning_rates.size() * f.head.weight_decays.size()) +
                        (f.head.closed_form && task.kind != "causal_lm" && task.kind != "tokens" ? 1 : 0);
    const auto least =
        f.head.patience > 0 ? std::min(f.head.epochs, std::max(f.head.min_epochs, f.head.patience)) : f.head.epochs;
    std::set<std::string> trainable{"head"};
    section.phases.push_back({"head", trainable, 0, trials * f.head.epochs, trials * least});
    for (int64_t unit = 1; unit <= unfrozen; ++unit) {
      trainable.insert(units[unit - 1]);
      const bool sure = unit == 1 || f.unfreeze.patience_units == 0 || unit <= f.unfreeze.patience_units;
      section.phases.push_back(
          {fmt::format("unfreeze {}", unit), trainable, unit, f.unfreeze.epochs, sure ? f.unfreeze.epochs : 0});
    }
    if (f.full.when != "never")
      section.phases.push_back({"full", model.all_groups(), unfrozen, f.full.epochs,
                                f.full.when != "always" ? 0
                                : f.full.patience > 0   ? std::min(f.full.epochs, f.full.patience)
                                                        : f.full.epochs});
    const bool verdict = f.head.verdict && task.kind != "causal_lm";
    section.shape_phases(loads, verdict);
    if (recipe.retain.report && !section.memory.phases.empty()) {
      auto start = section.memory.phases.front();
      start.phase = "start (what the source knows is measured)";
      start.trainable.clear();
      start.rows = 0;
      start.for_report = start.second_model = true;
      section.memory.phases.push_back(start);
    }

    // Stores, in the order in which they are asked for, until the budget is spent.
    const double both = 1.0 + validation_rows / std::max(1.0, rows);  // splits of one kind
    double stored = 0;
    std::set<std::pair<std::string, int64_t>> kept;
    for (auto& phase : section.phases) {
      model.unfreeze_only(phase.trainable);
      bool frozen_part = false;  // else inputs are read, which is part of every epoch
      phase.stored = recipe.features.enabled;
      for (const auto& chain : model.chains) {
        const auto boundary = model.boundary(chain.name);
        frozen_part = frozen_part || boundary > 0;
        if (boundary == 0 || kept.contains({chain.name, boundary})) continue;
        const auto bytes = loads && recipe.features.enabled
                               ? both * static_cast<double>(features::store_bytes(model, chain.name, boundary,
                                                                                  *train.inputs, recipe.features))
                               : 0;
        if (!recipe.features.enabled || stored + bytes > recipe.features.budget_gb * 1e9) phase.stored = false;
        else stored += bytes, kept.insert({chain.name, boundary});
      }
      phase.stored = phase.stored && frozen_part;
    }
    double per_row = 0;
    if (loads && memory_verdict(section.memory, section.choices(), room).at("fits").get<bool>()) {
      model.unfreeze_only(model.all_groups());
      model.eval();
      const torch::NoGradGuard no_grad;
      const train::Autocast autocast(model.device(), section.training.bf16());
      per_row = seconds_per_row(train::batches_by_rows(*train_stream, recipe.features.capture_tokens), *train_stream,
                                [&](const Batch& batch) {
                                  auto entering = train_stream->enter(batch, 0);
                                  return seconds_of([&] { train::ends_behind(model, std::move(entering), {}); });
                                });
    }
    const auto capture = per_row * (rows + validation_rows);
    for (auto& phase : section.phases) {
      if (!phase.stored) continue;
      model.unfreeze_only(phase.trainable);
      double part = 0;  // of the chains that lies before the boundaries
      for (const auto& chain : model.chains)
        part += static_cast<double>(model.boundary(chain.name)) / static_cast<double>(chain.blocks.size()) /
                static_cast<double>(model.chains.size());
      if (phase.name == "head" || phase.units > recipe.features.units_ahead) phase.once = capture * part;
    }
    conclude(section, "the phases");

    const auto epoch_of = [&](const char* name) {
      for (const auto& row : plan["phases"])
        if (row["phase"] == name) return row.value("seconds_per_epoch", 0.0);
      return 0.0;
    };
    if (verdict) {
      const auto of_train = share(kVerdictExamples, dataset.train.size()),
                 of_validation = share(kVerdictExamples, dataset.validation.size());
      // A random copy's features, and the head on them as long as the best trial learned.
      extra["verdict"] = per_row * (rows * of_train + validation_rows * of_validation) +
                         static_cast<double>(f.head.epochs) * epoch_of("head") * of_train;
    }
    if (recipe.retain.report) {
      // Of the source, and after every phase.
      const auto examples = share(recipe.retain.examples, dataset.validation.size());
      extra["what is kept of the source"] =
          per_row * validation_rows * examples * static_cast<double>(1 + section.phases.size());
    }
    if (dataset.test.size() > 0)
      extra["test"] = per_row * rows * static_cast<double>(dataset.test.size()) /
                      static_cast<double>(std::max<int64_t>(1, dataset.train.size()));
    plan["source"] = source.description(model);
    plan["train"] = dataset.train.size();
    plan["validation"] = dataset.validation.size();
    plan["test"] = dataset.test.size();
    plan["store_bytes"] = static_cast<int64_t>(stored);
    disk["stored activations"] = static_cast<int64_t>(stored);
    disk["model"] = recipe.lora.rank > 0 && !recipe.lora.merge ? 0 : weight_bytes(model);
    int64_t learned = 0;
    for (const auto& row : plan["phases"])
      learned = std::max(learned, row["memory"]["best"].get<int64_t>() * 2 + row["memory"]["optimizer"].get<int64_t>());
    disk["checkpoints"] = std::max(disk.value("checkpoints", int64_t{0}), 2 * learned);
  }

  static int64_t parameters(const models::Model& model) {
    int64_t count = 0;
    for (const auto& item : model.parameters_by_key()) count += item.value().numel();
    return count;
  }

  static int64_t weight_bytes(const models::Model& model) {
    int64_t bytes = 0;
    for (const auto& item : model.parameters_by_key()) bytes += static_cast<int64_t>(item.value().nbytes());
    return bytes;
  }

  models::Source open() const {
    auto source = models::Source::open(origin.folder);
    source.name = origin.name;
    return source;
  }

  Json run() {
    origin = find_source(recipe.source, recipe.sources, progress);
    room = available();
    plan = {{"threads", at::get_num_threads()}, {"device", models::device_name()}, {"phases", Json::array()}};
    if (purpose != Purpose::finetune && !recipe.adapt.corpus.empty()) adaptation();
    if (purpose != Purpose::adapt) finetuning();
    int64_t on_disk = 0;
    for (const auto& item : disk.items()) on_disk += item.value().get<int64_t>();
    plan["disk"] = disk;
    plan["disk_bytes"] = on_disk;
    if (!fits) return plan;
    plan["peak_memory_bytes"] = peak;
    for (const auto& item : extra.items()) low += item.value().get<double>(), high += item.value().get<double>();
    plan["seconds_beside_phases"] = extra;
    plan["seconds"] = {{"at_least", low}, {"at_most", high}};
    return plan;
  }

  const Recipe& recipe;
  Purpose purpose;
  report::Progress& progress;
  FoundSource origin;
  Json plan, disk = Json::object(), extra = Json::object();
  bool fits = true;
  double low = 0, high = 0;
  int64_t peak = 0;  // mapped files apart
  int64_t room = 0;
};

}  // namespace

Json plan_recipe(const Recipe& recipe, Purpose purpose, report::Progress& progress) {
  use_machine(recipe.train.threads, recipe.train.device);
  if (recipe.source == "auto") return plan_selection(recipe, progress);
  return Planner(recipe, purpose, progress).run();
}

}  // namespace graft::run
