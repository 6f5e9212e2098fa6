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
               std::shared_ptr<models::Head> old_head, std::shared_ptr<train::LossTerm> also, bool labels)
    : stream_(stream),
      examples_(std::move(examples)),
      per_example_(fraction / (1 - fraction)),
      seed_(seed),
      old_head_(std::move(old_head)),
      also_(std::move(also)),
      labels_(labels) {
  GRAFT_ASSERT(!examples_.empty() && fraction > 0 && fraction < 1 && (labels_ || also_));
}

Json Replay::state() const {
  Json state{{"seen", seen_}, {"replayed", replayed_}};
  if (also_) state["also"] = also_->state();
  return state;
}

void Replay::load_state(const Json& state) {
  seen_ = state.at("seen");
  replayed_ = state.at("replayed");
  if (also_) also_->load_state(state.at("also"));
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
  const double counted = stream_.weight(chosen, step.epoch);
  if (counted == 0) return 0;
  const double share = static_cast<double>(due) / static_cast<double>(step.examples);
  const Borrowed borrowed(step.model, old_head_);
  torch::manual_seed(step.seed);
  models::Tensor loss;
  {
    const train::Autocast autocast(step.model.device(), step.bf16);
    const auto entering = stream_.enter(chosen, step.epoch);
    const auto reads = stream_.reads(chosen, step.epoch);
    const auto ends = train::ends_behind(step.model, entering, reads);
    if (labels_ && also_) also_->before_head({step.model, chosen, ends, {}, step.epoch, &entering, &reads});
    const auto outputs = labels_ ? step.model.head->forward(ends) : train::Outputs();
    if (labels_) loss = stream_.loss_sum(outputs, chosen, step.epoch) * (share / counted);
    if (also_)
      if (const auto value = also_->value({step.model, chosen, ends, outputs, step.epoch, &entering, &reads});
          value.defined())
        loss = loss.defined() ? loss + value * share : value * share;
  }
  if (also_) also_->add_gradients(step);
  if (!loss.defined() || !loss.requires_grad()) return 0;
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
