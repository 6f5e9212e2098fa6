#include "graft/retain/fisher.h"

#include <algorithm>

#include "graft/core/error.h"
#include "graft/core/interrupt.h"
#include "graft/retain/per_example.h"
#include "graft/train/batches.h"

namespace graft::retain {
namespace {

using Parameters = torch::OrderedDict<std::string, Tensor>;
using Batch = std::vector<int64_t>;

/// The model with gradients everywhere, in evaluation mode, until this goes away.
struct Opened {
  explicit Opened(models::Model& model)
      : model(model), training(model.is_training()), parameters(model.parameters_by_key()) {
    model.eval();
    for (auto& item : parameters) {
      learning.push_back(item.value().requires_grad());
      item.value().set_requires_grad(true);
    }
    forget();
  }
  ~Opened() {
    forget();
    size_t i = 0;
    for (auto& item : parameters) item.value().set_requires_grad(learning[i++]);
    model.train(training);
  }
  void forget() {
    for (auto& item : parameters) item.value().mutable_grad() = Tensor();
  }
  models::Model& model;
  bool training;
  Parameters parameters;
  std::vector<bool> learning;
};

struct Pass {
  models::Model& model;
  const train::Stream& stream;

  /// Forward and backward of the summed loss; the numbers of rows that the examples may have in a tensor.
  std::vector<std::vector<int64_t>> run(const Batch& examples) const {
    const torch::AutoGradMode on(true);
    auto entering = stream.enter(examples, train::kEvaluation);
    const auto reads = stream.reads(examples, train::kEvaluation);
    std::vector<std::vector<int64_t>> lengths;
    const auto add = [&](const std::vector<int64_t>& l) {
      if (l.size() == examples.size() && std::find(lengths.begin(), lengths.end(), l) == lengths.end())
        lengths.push_back(l);
    };
    for (const auto& [chain, x] : entering) {
      if (x.hidden.values.defined()) add(x.hidden.lengths);
      for (const auto& [slot, rows] : x.kept) add(rows.lengths);
    }
    if (reads && reads->where == models::Reads::Where::listed) add(reads->lengths);
    std::vector<int64_t> rows;  // of packed sequences, whose pieces the lengths above are of
    for (const auto example : examples) rows.push_back(stream.rows(example));
    add(rows);
    add(std::vector<int64_t>(examples.size(), 1));
    const auto outputs = train::forward_behind(model, std::move(entering), reads);
    const auto loss = stream.loss_sum(outputs, examples, train::kEvaluation);
    if (loss.requires_grad()) loss.backward();
    return lengths;
  }
};

/// Parameters whose single gradients, as the layers tell them, are those of the examples alone.
std::set<std::string> trusted(Opened& opened, const Pass& pass, Taps& taps, const Batch& batch,
                              const std::map<std::string, std::vector<Use>>& uses) {
  std::set<std::string> keys;
  for (const auto& item : opened.parameters) keys.insert(item.key());
  for (const auto n : std::set<size_t>{0, batch.size() - 1}) {
    opened.forget();
    pass.run({batch[n]});
    taps.forget();
    double largest = 0;
    for (const auto& item : opened.parameters)
      if (item.value().grad().defined()) largest = std::max(largest, item.value().grad().abs().max().item<double>());
    // Where a gradient is 0 but for rounding (the bias of attention's keys), there is nothing to compare.
    const double noise = 1e-6 * largest;
    for (const auto& item : opened.parameters) {
      const auto& alone = item.value().grad();
      const auto found = uses.find(item.key());
      if (found == uses.end()) {
        if (alone.defined()) keys.erase(item.key());  // not a layer's, or of rows that belong to no example
        continue;
      }
      auto told = torch::zeros_like(item.value());
      for (const auto& use : found->second) use.add_example(static_cast<int64_t>(n), told);
      if (!alone.defined()) {
        if (told.abs().max().item<double>() > noise) keys.erase(item.key());
        continue;
      }
      const auto scale = alone.abs().max().item<double>();
      const auto off = (told - alone).abs().max().item<double>();
      if (off > 1e-3 * scale + noise) keys.erase(item.key());
    }
  }
  opened.forget();
  return keys;
}

}  // namespace

Fisher fisher(models::Model& model, const train::Stream& stream, const std::vector<int64_t>& examples,
              const FisherWork& work) {
  GRAFT_CHECK(usage, !examples.empty(), "the Fisher needs examples; give at least one.");
  Opened opened(model);
  const Pass pass{model, stream};
  Fisher result{.examples = static_cast<int64_t>(examples.size())};
  for (const auto& item : opened.parameters) result.diagonal[item.key()] = torch::zeros_like(item.value()).detach();
  std::set<std::string> fast;  // parameters that the layers tell
  bool decided = work.loop;

  auto sorted = examples;
  std::stable_sort(sorted.begin(), sorted.end(), [&](auto a, auto b) { return stream.rows(a) < stream.rows(b); });
  int64_t done = 0;
  const auto tell = [&](int64_t more) {
    done += more;
    if (work.progress) work.progress(done, result.examples);
  };

  if (!work.loop) {
    Taps taps(model);
    std::vector<Batch> waiting = train::micro_batches(stream, sorted, work.batch_rows);
    std::reverse(waiting.begin(), waiting.end());
    while (!waiting.empty()) {
      stop_if_interrupted();
      const auto batch = waiting.back();
      waiting.pop_back();
      opened.forget();
      const auto lengths = pass.run(batch);
      // Sums of the whole batch are not wanted; the taps have what is.
      const auto uses = taps.uses(lengths);
      if (!uses) {
        const auto half = batch.begin() + static_cast<std::ptrdiff_t>(batch.size() / 2);
        waiting.emplace_back(half, batch.end());
        waiting.emplace_back(batch.begin(), half);
        continue;
      }
      if (!decided) {
        fast = trusted(opened, pass, taps, batch, *uses);
        decided = true;
        // What a product's matrix learns from the batch as a whole is a third of the backward pass, and nobody reads it.
        for (auto& item : opened.parameters)
          if (const auto found = uses->find(item.key());
              fast.contains(item.key()) && found != uses->end() &&
              std::all_of(found->second.begin(), found->second.end(), [](const Use& use) { return use.passes_on; }))
            item.value().set_requires_grad(false);
      }
      const torch::NoGradGuard no_grad;
      for (const auto& [key, of_parameter] : *uses)
        if (fast.contains(key)) add_squares(of_parameter, result.diagonal.at(key));
      tell(static_cast<int64_t>(batch.size()));
    }
  }

  // What no layer tells: one example at a time, and gradients of nothing else.
  for (auto& item : opened.parameters) {
    const bool wanted = !fast.contains(item.key());
    item.value().set_requires_grad(wanted);
    if (wanted) result.looped.push_back(item.key());
  }
  std::set<std::string> moved;
  if (!result.looped.empty())
    for (const auto example : sorted) {
      stop_if_interrupted();
      opened.forget();
      pass.run({example});
      const torch::NoGradGuard no_grad;
      for (const auto& item : opened.parameters)
        if (const auto& g = item.value().grad(); g.defined()) {
          result.diagonal.at(item.key()).addcmul_(g, g);
          moved.insert(item.key());
        }
      if (work.loop) tell(1);
    }
  std::erase_if(result.looped, [&](const auto& key) { return !moved.contains(key); });

  const torch::NoGradGuard no_grad;
  for (auto& [key, values] : result.diagonal) {
    values /= static_cast<double>(result.examples);
    GRAFT_CHECK(
        numerical, values.isfinite().all().item<bool>(),
        "the Fisher of {} is not finite: a gradient of the source model is NaN or infinite. Check the model and "
        "its data with `graft evaluate`.",
        key);
  }
  return result;
}

}  // namespace graft::retain
