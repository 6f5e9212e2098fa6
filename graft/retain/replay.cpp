#include "graft/retain/replay.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "graft/core/error.h"
#include "graft/core/random.h"

namespace graft::retain {
namespace {

/// The old head in the new one's place.
struct Borrowed {
  Borrowed(models::Model& model, const std::shared_ptr<models::Head>& head) : model(model), own(model.head) {
    if (head) model.head = head;
  }
  ~Borrowed() { model.head = own; }
  models::Model& model;
  std::shared_ptr<models::Head> own;
};

bool anything_learns(const models::Model& model) {
  return std::any_of(model.chains.begin(), model.chains.end(), [&](const auto& chain) {
    return model.boundary(chain.name) < static_cast<int64_t>(chain.blocks.size());
  });
}

}  // namespace

Replay::Replay(const train::Stream& stream, std::vector<int64_t> examples, double fraction, uint64_t seed,
               std::shared_ptr<models::Head> old_head)
    : stream_(stream),
      examples_(std::move(examples)),
      per_example_(fraction / (1 - fraction)),
      seed_(seed),
      old_head_(std::move(old_head)) {
  GRAFT_ASSERT(!examples_.empty() && fraction > 0 && fraction < 1);
}

double Replay::add_gradients(const train::WholeStep& step) {
  if (step.step == 0) seen_ = replayed_ = 0;
  seen_ += step.examples;
  const auto due = static_cast<int64_t>(std::floor(static_cast<double>(seen_) * per_example_ + 0.5)) - replayed_;
  if (due <= 0) return 0;
  const auto first = replayed_;
  replayed_ += due;
  if (old_head_ && !anything_learns(step.model)) return 0;  // neither the blocks nor this head can change

  // Each pass over the source's examples is another permutation of them.
  std::vector<int64_t> chosen;
  const auto size = static_cast<int64_t>(examples_.size());
  std::vector<int64_t> order;
  int64_t pass = -1;
  for (int64_t i = first; i < first + due; ++i) {
    if (i / size != pass) {
      pass = i / size;
      order = examples_;
      Random(seed_of(seed_, {"retain", "replay"}, {step.epoch, static_cast<uint64_t>(pass)})).shuffle(order);
    }
    chosen.push_back(order[i % size]);
  }
  const Borrowed borrowed(step.model, old_head_);
  torch::manual_seed(step.seed);
  models::Tensor loss;
  {
    const train::Autocast autocast(step.model.device(), step.bf16);
    const auto outputs =
        train::forward_behind(step.model, stream_.enter(chosen, step.epoch), stream_.reads(chosen, step.epoch));
    loss = stream_.loss_sum(outputs, chosen, step.epoch) / static_cast<double>(step.examples);
  }
  if (!loss.requires_grad()) return 0;
  loss.backward();
  return loss.item<double>();
}

std::vector<int64_t> balanced(const std::vector<int64_t>& labels, int64_t count, uint64_t seed) {
  std::vector<int64_t> order(labels.size());
  std::iota(order.begin(), order.end(), 0);
  if (count <= 0 || count >= static_cast<int64_t>(order.size())) return order;
  Random(seed).shuffle(order);
  // Round after round one of each label: a label that has few gives all of them.
  std::map<int64_t, std::vector<int64_t>> by_label;
  for (const auto i : order) by_label[labels[i]].push_back(i);
  std::vector<int64_t> chosen;
  for (size_t round = 0; static_cast<int64_t>(chosen.size()) < count; ++round)
    for (const auto& [label, examples] : by_label)
      if (round < examples.size() && static_cast<int64_t>(chosen.size()) < count) chosen.push_back(examples[round]);
  std::sort(chosen.begin(), chosen.end());
  return chosen;
}

}  // namespace graft::retain
