// What a phase trains on and is judged by: examples that enter the chains at their boundaries, and the loss of what
// the head makes of them. The loop knows nothing else of text, images, labels or masks.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "graft/models/model.h"
#include "graft/nn/autocast.h"
#include "graft/train/metrics.h"

namespace graft::train {

using models::Activations;
using models::Outputs;
using models::Reads;
using nn::Autocast;

/// The epoch number of evaluation passes: masks and views are then the same at each evaluation.
constexpr uint64_t kEvaluation = UINT64_MAX;

struct Stream {
  virtual ~Stream() = default;
  virtual int64_t size() const = 0;
  /// What an example costs behind the boundary, in rows; batches are made of examples of like cost.
  virtual int64_t rows(int64_t example) const = 0;
  /// Per chain, the activations that enter its boundary.
  virtual std::map<std::string, Activations> enter(const std::vector<int64_t>& examples, uint64_t epoch) const = 0;
  /// Says that enter() will be called for these examples next.
  virtual void expect(const std::vector<int64_t>&, uint64_t) const {}
  /// At which positions the last block is computed; nullopt: where the head reads.
  virtual std::optional<Reads> reads(const std::vector<int64_t>&, uint64_t) const { return std::nullopt; }
  /// Items (examples, tokens) that the loss of these examples is summed over; may be 0.
  virtual double weight(const std::vector<int64_t>& examples, uint64_t epoch) const = 0;
  /// The summed, not averaged, loss: a batch in parts has the gradient of the whole.
  virtual Tensor loss_sum(const Outputs& outputs, const std::vector<int64_t>& examples, uint64_t epoch) const = 0;
  /// Prepares predictions for all examples, then adds those of a batch.
  virtual Predictions predictions() const = 0;
  virtual void collect(const Outputs& outputs, const std::vector<int64_t>& examples, Predictions& into) const = 0;
};

/// From the boundaries to the head's outputs. `checkpointed`: of each block only what enters it is kept for the backward
/// pass, and the block is computed again then.
Outputs forward_behind(models::Model& model, std::map<std::string, Activations> entering,
                       const std::optional<Reads>& reads, bool checkpointed = false);

/// Evaluation mode, no gradient, batches of at most `batch_rows` rows, memory constant in the number of examples but for
/// the predictions. `bf16`: under autocast.
Predictions evaluate(models::Model& model, const Stream& stream, int64_t batch_rows, bool bf16);

/// The name of the first block, or "head", whose output or parameters hold NaN or infinity; "" when none does.
std::string first_bad_block(models::Model& model, const Stream& stream, const std::vector<int64_t>& examples,
                            uint64_t epoch);

}  // namespace graft::train
