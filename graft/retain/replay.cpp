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
               std::shared_ptr<models::Head> old_head, Answers logits, double logits_weight)
    : stream_(stream),
      examples_(std::move(examples)),
      per_example_(fraction / (1 - fraction)),
      seed_(seed),
      old_head_(std::move(old_head)),
      logits_(std::move(logits)),
      logits_weight_(logits_weight) {
  GRAFT_ASSERT(logits_weight == 0 || logits_.logits);
  GRAFT_ASSERT(!examples_.empty() && fraction > 0 && fraction < 1);
}

/// The sum over the examples of the mean squared difference from the source's logits.
models::Tensor Replay::moved_logits(const models::Tensor& logits, const std::vector<int64_t>& examples) const {
  const auto then = logits_.of(examples).to(logits.device());
  const auto moved = (logits.to(torch::kFloat32).reshape(then.sizes()) - then).square().mean(1);
  std::vector<float> shares;  // of a row in its example
  for (const auto n : logits_.lengths(examples)) shares.insert(shares.end(), n, 1.0f / static_cast<float>(n));
  return moved.dot(torch::tensor(shares).to(moved.device()));
}

std::optional<double> Replay::strengthen(double factor) {
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
  const Borrowed borrowed(step.model, old_head_);
  torch::manual_seed(step.seed);
  models::Tensor loss;
  {
    const train::Autocast autocast(step.model.device(), step.bf16);
    const auto outputs =
        train::forward_behind(step.model, stream_.enter(chosen, step.epoch), stream_.reads(chosen, step.epoch));
    loss = stream_.loss_sum(outputs, chosen, step.epoch);
    if (logits_weight_ > 0) loss = loss + logits_weight_ * moved_logits(outputs.at("logits"), chosen);
    loss = loss / static_cast<double>(step.examples);
  }
  if (!loss.requires_grad()) return 0;
  loss.backward();
  return loss.item<double>();
}

}  // namespace graft::retain
