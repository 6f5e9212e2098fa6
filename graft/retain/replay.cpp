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
               std::shared_ptr<models::Head> old_head, Beside beside)
    : stream_(stream),
      examples_(std::move(examples)),
      per_example_(fraction / (1 - fraction)),
      seed_(seed),
      old_head_(std::move(old_head)),
      beside_(std::move(beside)) {
  GRAFT_ASSERT(beside_.logits_weight == 0 || beside_.logits.logits);
  GRAFT_ASSERT(!examples_.empty() && fraction > 0 && fraction < 1 && (beside_.labels || beside_.term));
}

Json Replay::state() const {
  Json state{{"seen", seen_}, {"replayed", replayed_}, {"per_example", per_example_}};
  if (beside_.term) state["term"] = beside_.term->state();
  return state;
}

void Replay::load_state(const Json& state) {
  seen_ = state.at("seen");
  replayed_ = state.at("replayed");
  per_example_ = state.at("per_example");
  if (beside_.term) beside_.term->load_state(state.at("term"));
}

/// The sum over the examples of the mean squared difference from the source's logits.
models::Tensor Replay::moved_logits(const models::Tensor& logits, const std::vector<int64_t>& examples) const {
  const auto then = beside_.logits.of(examples).to(logits.device());
  const auto moved = (logits.to(torch::kFloat32).reshape(then.sizes()) - then).square().mean(1);
  std::vector<float> shares;  // of a row in its example
  for (const auto n : beside_.logits.lengths(examples)) shares.insert(shares.end(), n, 1.0f / static_cast<float>(n));
  return moved.dot(torch::tensor(shares).to(moved.device()));
}

std::optional<double> Replay::strengthen(double factor) {
  if (!beside_.labels) return beside_.term->strengthen(factor);
  if (per_example_ >= 1) return {};
  per_example_ = std::min(1.0, per_example_ * factor);
  return per_example_ / (1 + per_example_);
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
    const auto& term = beside_.term;
    if (beside_.labels && term) term->before_head({step.model, chosen, ends, {}, step.epoch, &entering, &reads});
    const auto outputs = beside_.labels ? step.model.head->forward(ends) : train::Outputs();
    if (beside_.labels) loss = stream_.loss_sum(outputs, chosen, step.epoch) * (share / counted);
    if (beside_.logits_weight > 0)
      loss = loss +
             moved_logits(outputs.at("logits"), chosen) * (beside_.logits_weight / static_cast<double>(step.examples));
    if (term)
      if (const auto value = term->value({step.model, chosen, ends, outputs, step.epoch, &entering, &reads});
          value.defined())
        loss = loss.defined() ? loss + value * share : value * share;
  }
  if (beside_.term) beside_.term->add_gradients(step);
  if (!loss.defined() || !loss.requires_grad()) return 0;
  loss.backward();
  return loss.item<double>();
}

}  // namespace graft::retain
