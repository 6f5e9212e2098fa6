// --dry-run: what a run would do, and from a few measured seconds what it would cost.
#include <chrono>

#include "graft/core/error.h"
#include "graft/core/process.h"
#include "graft/core/random.h"
#include "graft/core/threads.h"
#include "graft/features/feed.h"
#include "graft/run/find_source.h"
#include "graft/run/pipeline.h"
#include "graft/run/selection.h"
#include "graft/run/task_inputs.h"
#include "graft/train/batches.h"
#include "graft/train/phase.h"
#include "graft/train/supervised.h"

namespace graft::run {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_of(const std::function<void()>& work) {
  const auto start = Clock::now();
  work();
  return std::chrono::duration<double>(Clock::now() - start).count();
}

int64_t trainable_parameters(const models::Model& model) {
  int64_t count = 0;
  for (const auto& item : model.parameters_by_key())
    if (model.trainable().contains(model.group_of(item.key()))) count += item.value().numel();
  return count;
}

using Batch = std::vector<int64_t>;
using Entering = std::map<std::string, models::Activations>;

/// Seconds per row of `work` on what enters its boundary, from batches spread over the split's lengths. What enters is
/// not timed: a run reads it from its store.
double seconds_per_row(const std::vector<Batch>& batches, const train::Stream& stream,
                       const std::function<void(Entering, const Batch&)>& work) {
  constexpr double kBudget = 2;  // seconds
  double seconds = 0, rows = 0;
  work(stream.enter(batches[batches.size() / 2], 0), batches[batches.size() / 2]);  // the first pass also allocates
  for (size_t i = 0; i < batches.size() && seconds < kBudget; i += std::max<size_t>(1, batches.size() / 16)) {
    auto entering = stream.enter(batches[i], 0);
    seconds += seconds_of([&] { work(std::move(entering), batches[i]); });
    for (const auto example : batches[i]) rows += stream.rows(example);
  }
  return seconds / rows;
}

}  // namespace

Json plan_recipe(const Recipe& recipe, Purpose purpose, report::Progress& progress) {
  at::set_num_threads(static_cast<int>(recipe.train.threads > 0 ? recipe.train.threads : available_cores()));
  if (recipe.source == "auto") return plan_selection(recipe, progress);
  const auto origin = find_source(recipe.source, recipe.sources, progress);
  auto source = models::Source::open(origin.folder);
  source.name = origin.name;
  if (purpose == Purpose::adapt)
    return {{"source", source.name}, {"phases", {{{"phase", "adapt"}, {"epochs", recipe.adapt.epochs}}}}};
  const auto kind = task_inputs(source, recipe.max_length, recipe.images, recipe.language);
  kind->settle(source);
  auto dataset = kind->read(recipe.data, recipe.seed, {});
  progress.line(data::summary_text(data::summary(dataset)));
  const models::Task task{dataset.task,
                          dataset.task == "regression" ? 1 : static_cast<int64_t>(dataset.label_names.size())};
  const auto loaded = models::load(source, task, recipe.seed, task.kind == "causal_lm");
  auto& model = *loaded.model;
  Wanted wanted{.split = "training", .task = dataset.task};
  if (recipe.data.bad_rows == "skip") wanted.bad_rows = data::BadRows::skip;
  wanted.training_seed = recipe.seed;
  const auto train = kind->prepare(model, dataset.train, wanted);
  const auto& inputs = *train.inputs;
  const features::Feed feed(model, inputs);
  const auto made = train::task_stream(model, feed, dataset.task, dataset.label_names,
                                       train.repeated ? *train.repeated : dataset.train, train.alignment);
  const auto& stream = *made;

  const auto& chain = model.chains.front();
  const auto blocks = static_cast<int64_t>(chain.blocks.size());
  double train_rows = 0;
  for (int64_t i = 0; i < inputs.size(); ++i) train_rows += stream.rows(i);
  // The splits are of one kind: validation texts are taken to be as long as the training texts.
  const double validation_share = 1.0 + static_cast<double>(dataset.validation.size()) / dataset.train.size();
  const double validation_rows = train_rows * (validation_share - 1);
  const bool bf16 = recipe.train.precision == "bfloat16";

  // Every step is timed on examples of this data set, at their own lengths.
  const auto needed = model.head->reads();
  model.unfreeze_only(model.all_groups());  // what enters is the input itself
  const auto row_batches = train::batches_by_rows(stream, recipe.features.capture_tokens);
  const double capture =
      (train_rows + validation_rows) * seconds_per_row(row_batches, stream, [&](Entering entering, const Batch&) {
        const torch::NoGradGuard no_grad;
        model.eval();
        model.forward(chain.name, 0, blocks, std::move(entering.at(chain.name)), needed);
      });
  Json phases = Json::array();
  uint64_t disk = 0;
  double low = 0, high = 0;
  const auto add = [&](const std::string& name, int64_t epochs, int64_t fewest, double seconds_per_epoch, double once) {
    phases.push_back({{"phase", name},
                      {"epochs", epochs},
                      {"trainable_parameters", trainable_parameters(model)},
                      {"seconds_per_epoch", seconds_per_epoch},
                      {"seconds_once", once}});
    low += once + fewest * seconds_per_epoch;
    high += once + epochs * seconds_per_epoch;
  };
  // Training steps and the evaluation of an epoch, for the groups that train now.
  const auto epoch = [&] {
    train::AdamW optimizer({});
    for (const auto& item : model.parameters_by_key())
      if (model.trainable().contains(model.group_of(item.key()))) optimizer.add(item.key(), item.value(), 0, 0);
    model.train();
    const auto step =
        seconds_per_row(train::epoch_batches(stream, recipe.train.batch_size, recipe.seed), stream,
                        [&](Entering entering, const Batch& examples) {
                          optimizer.zero_grad();
                          {
                            const train::Autocast autocast(model.device(), bf16);
                            const auto outputs = train::forward_behind(model, std::move(entering), std::nullopt,
                                                                       recipe.train.activation_checkpointing);
                            (stream.loss_sum(outputs, examples, 0) / stream.weight(examples, 0)).backward();
                          }
                          optimizer.clip_gradients(recipe.train.max_gradient_norm);
                          optimizer.step(1);
                        });
    optimizer.zero_grad();
    model.eval();
    const auto evaluation = seconds_per_row(train::batches_by_rows(stream, recipe.train.micro_batch_tokens), stream,
                                            [&](Entering entering, const Batch&) {
                                              const torch::NoGradGuard no_grad;
                                              const train::Autocast autocast(model.device(), bf16);
                                              train::forward_behind(model, std::move(entering), std::nullopt);
                                            });
    return step * train_rows + evaluation * validation_rows;
  };
  const auto stored = [&](int64_t boundary) {
    return features::store_bytes(model, chain.name, boundary, inputs, recipe.features) * validation_share;
  };

  const auto& f = recipe.finetune;
  const auto trials =
      static_cast<int64_t>(f.head.learning_rates.size() * f.head.weight_decays.size()) + (f.head.closed_form ? 1 : 0);
  model.unfreeze_only({"head"});
  add("head", trials * f.head.epochs, trials * f.head.min_epochs, epoch(), capture);
  disk += static_cast<uint64_t>(stored(blocks));
  std::set<std::string> trainable{"head"};
  const auto units = f.unfreeze.max_units < 0 ? blocks : std::min(blocks, f.unfreeze.max_units);
  for (int64_t unit = 1; unit <= units; ++unit) {
    for (const auto& group : chain.blocks[blocks - unit].groups) trainable.insert(group);
    model.unfreeze_only(trainable);
    add(fmt::format("unfreeze {}", unit), f.unfreeze.epochs, unit == 1 ? f.unfreeze.epochs : 0, epoch(), 0);
    disk += static_cast<uint64_t>(stored(blocks - unit));
  }
  model.unfreeze_only(model.all_groups());
  if (f.full.when != "never") add("full", f.full.epochs, f.full.when == "always" ? 1 : 0, epoch(), 0);
  const auto parameters = trainable_parameters(model);
  return {{"source", source.description(model)},
          {"train", dataset.train.size()},
          {"validation", dataset.validation.size()},
          {"test", dataset.test.size()},
          {"threads", at::get_num_threads()},
          {"phases", phases},
          {"store_bytes", std::min<uint64_t>(disk, static_cast<uint64_t>(recipe.features.budget_gb * 1e9))},
          {"weights_and_optimizer_bytes", parameters * 4 * 4},
          {"peak_memory_bytes", peak_memory()},
          {"seconds", {{"at_least", low}, {"at_most", high}}}};
}

}  // namespace graft::run
