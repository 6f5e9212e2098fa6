#include "graft/train/stream.h"

#include <algorithm>
#include <numeric>

#include "graft/core/interrupt.h"
#include "graft/train/activation_checkpointing.h"
#include "graft/train/batches.h"
#include "graft/train/ends.h"

namespace graft::train {
namespace {

// Products are at full speed long before; more rows would only make the peak of memory higher than training's.
constexpr int64_t kEvaluationRows = 4096;

}  // namespace

Ends ends_behind(models::Model& model, std::map<std::string, Activations> entering, const std::optional<Reads>& reads,
                 bool checkpointed) {
  const auto needed = reads.value_or(model.head->reads());
  Ends ends;
  for (const auto& chain : model.chains) {
    auto x = std::move(entering.at(chain.name));
    for (const auto& up : chain.upstream) x.kept[up] = ends.at(up).hidden;
    const auto from = model.boundary(chain.name), to = static_cast<int64_t>(chain.blocks.size());
    if (checkpointed)
      for (int64_t i = from; i < to; ++i) x = forward_checkpointed(model, chain.name, i, std::move(x), needed);
    else x = model.forward(chain.name, from, to, std::move(x), needed);
    ends[chain.name] = std::move(x);
  }
  return ends;
}

Outputs forward_behind(models::Model& model, std::map<std::string, Activations> entering,
                       const std::optional<Reads>& reads, bool checkpointed) {
  return model.head->forward(ends_behind(model, std::move(entering), reads, checkpointed));
}

Predictions evaluate(models::Model& model, const Stream& stream, int64_t batch_rows, bool bf16) {
  const torch::NoGradGuard no_grad;
  const bool was_training = model.is_training();
  model.eval();
  auto predictions = stream.predictions();
  double loss = 0, weight = 0;
  const auto batches = batches_by_rows(stream, std::min(batch_rows, kEvaluationRows));
  for (size_t b = 0; b < batches.size(); ++b) {
    const auto& examples = batches[b];
    if (b + 1 < batches.size()) stream.expect(batches[b + 1], kEvaluation);
    stop_if_interrupted();
    const Autocast autocast(model.device(), bf16);
    const auto outputs =
        forward_behind(model, stream.enter(examples, kEvaluation), stream.reads(examples, kEvaluation));
    const auto w = stream.weight(examples, kEvaluation);
    if (w > 0) loss += stream.loss_sum(outputs, examples, kEvaluation).item<double>();
    weight += w;
    stream.collect(outputs, examples, predictions);
  }
  predictions.loss = weight > 0 ? loss / weight : 0;
  model.train(was_training);
  return predictions;
}

std::string first_bad_block(models::Model& model, const Stream& stream, const std::vector<int64_t>& examples,
                            uint64_t epoch) {
  const torch::NoGradGuard no_grad;
  const auto bad = [](const Tensor& x) {
    return x.defined() && x.is_floating_point() && !x.isfinite().all().item<bool>();
  };
  for (const auto& item : model.parameters_by_key())
    if (bad(item.value())) return model.group_of(item.key());
  auto entering = stream.enter(examples, epoch);
  std::map<std::string, models::Rows> ends;
  for (const auto& chain : model.chains) {
    auto x = entering.at(chain.name);
    const auto from = model.boundary(chain.name);
    if (bad(x.hidden.values)) return chain.name + ", before block " + std::to_string(from);
    for (const auto& up : chain.upstream) x.kept[up] = ends.at(up);
    for (int64_t i = from; i < static_cast<int64_t>(chain.blocks.size()); ++i) {
      x = model.forward(chain.name, i, i + 1, std::move(x), {});
      if (bad(x.hidden.values)) return chain.blocks[i].name;
    }
    ends[chain.name] = x.hidden;
  }
  return "head";
}

}  // namespace graft::train
