// --dry-run: what a run would do, and from a few measured seconds what it would cost.
#include <chrono>

#include "graft/core/error.h"
#include "graft/core/random.h"
#include "graft/core/threads.h"
#include "graft/features/feed.h"
#include "graft/run/pipeline.h"
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

/// Seconds per row of what a phase does, from batches spread over the split's lengths.
double seconds_per_row(const std::vector<std::vector<int64_t>>& batches, const train::Stream& stream,
                       const std::function<void(const std::vector<int64_t>&)>& work) {
  constexpr double kBudget = 1.5;  // seconds
  double seconds = 0, rows = 0;
  work(batches[batches.size() / 2]);  // the first pass also allocates
  for (size_t i = 0; i < batches.size() && seconds < kBudget; i += std::max<size_t>(1, batches.size() / 12)) {
    seconds += seconds_of([&] { work(batches[i]); });
    for (const auto example : batches[i]) rows += stream.rows(example);
  }
  return seconds / rows;
}

}  // namespace

Json plan_recipe(const Recipe& recipe, Purpose purpose, report::Progress& progress) {
  at::set_num_threads(static_cast<int>(recipe.train.threads > 0 ? recipe.train.threads : available_cores()));
  const auto source = models::Source::open(recipe.source);
  if (purpose == Purpose::adapt)
    return {{"source", source.folder.filename().string()},
            {"phases", {{{"phase", "adapt"}, {"epochs", recipe.adapt.epochs}}}}};
  const auto kind = task_inputs(source, recipe.max_length, recipe.images);
  auto dataset = kind->read(recipe.data, recipe.seed, {});
  progress.line(data::summary_text(data::summary(dataset)));
  const models::Task task{dataset.task,
                          dataset.task == "regression" ? 1 : static_cast<int64_t>(dataset.label_names.size())};
  const auto loaded = models::load(source, task, recipe.seed, false);
  auto& model = *loaded.model;
  Wanted wanted{.split = "training", .words = dataset.task == "tokens"};
  if (recipe.data.bad_rows == "skip") wanted.bad_rows = data::BadRows::skip;
  wanted.training_seed = recipe.seed;
  const auto train = kind->prepare(model, dataset.train, wanted);
  const auto& inputs = *train.inputs;
  const features::Feed feed(model, inputs);
  const train::Supervised stream(model, feed, dataset.task, dataset.label_names,
                                 train.repeated ? *train.repeated : dataset.train, train.first_tokens);

  const auto& chain = model.chains.front();
  const auto blocks = static_cast<int64_t>(chain.blocks.size());
  double all_rows = 0;
  for (int64_t i = 0; i < inputs.size(); ++i) all_rows += inputs.length(i);
  const double validation_share = 1.0 + static_cast<double>(dataset.validation.size()) / dataset.train.size();

  // Capture and training steps are timed on examples of this data set, at their own lengths.
  model.unfreeze_only({"head"});
  const double capture =
      all_rows * validation_share *
      seconds_per_row(train::batches_by_rows(stream, recipe.features.capture_tokens), stream,
                      [&](const auto& examples) {
                        const torch::NoGradGuard no_grad;
                        model.eval();
                        model.forward(chain.name, 0, blocks, inputs.batch(chain.name, examples), model.head->reads());
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
  const auto training = [&] {
    model.train();
    const auto boundary = model.boundary(chain.name);
    const auto seconds = seconds_per_row(
        train::epoch_batches(stream, recipe.train.batch_size, recipe.seed), stream, [&](const auto& examples) {
          std::map<std::string, models::Activations> entering;
          entering[chain.name] = feed.enter(chain.name, boundary, examples, model.head->reads());
          (stream.loss_sum(train::forward_behind(model, std::move(entering), std::nullopt), examples, 0) /
           examples.size())
              .backward();
        });
    for (auto& item : model.parameters_by_key()) item.value().mutable_grad() = models::Tensor();
    return seconds * all_rows;
  };
  const auto stored = [&](int64_t boundary) {
    return features::store_bytes(model, chain.name, boundary, inputs, recipe.features) * validation_share;
  };

  const auto& f = recipe.finetune;
  add("head", f.head.epochs, f.head.min_epochs, 0.02 * static_cast<double>(dataset.train.size()) / 1000, capture);
  disk += static_cast<uint64_t>(stored(blocks));
  std::set<std::string> trainable{"head"};
  const auto units = f.unfreeze.max_units < 0 ? blocks : std::min(blocks, f.unfreeze.max_units);
  for (int64_t unit = 1; unit <= units; ++unit) {
    for (const auto& group : chain.blocks[blocks - unit].groups) trainable.insert(group);
    model.unfreeze_only(trainable);
    // The prefix is read from the store: its share of the time is the capture pass's.
    const double prefix = capture / validation_share * static_cast<double>(blocks - unit) / static_cast<double>(blocks);
    add(fmt::format("unfreeze {}", unit), f.unfreeze.epochs, unit == 1 ? f.unfreeze.epochs : 0,
        std::max(0.0, training() - prefix), 0);
    disk += static_cast<uint64_t>(stored(blocks - unit));
  }
  for (const auto& group : model.groups) trainable.insert(group.name);
  model.unfreeze_only(trainable);
  if (f.full.when != "never") add("full", f.full.epochs, f.full.when == "always" ? 1 : 0, training(), 0);
  const auto parameters = trainable_parameters(model);
  return {{"source", source.description(model)},
          {"train", dataset.train.size()},
          {"validation", dataset.validation.size()},
          {"test", dataset.test.size()},
          {"threads", at::get_num_threads()},
          {"phases", phases},
          {"store_bytes", std::min<uint64_t>(disk, static_cast<uint64_t>(recipe.features.budget_gb * 1e9))},
          {"weights_and_optimizer_bytes", parameters * 4 * 4},
          {"seconds", {{"at_least", low}, {"at_most", high}}}};
}

}  // namespace graft::run
