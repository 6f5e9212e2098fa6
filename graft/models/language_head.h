// What a language head multiplies at its end. Who needs its distributions for a purpose beside the loss (the divergence
// from a source, graft/retain/kl.h) takes these, and the whole matrix of logits is never made.
#pragma once

#include "graft/models/activations.h"
#include "graft/nn/chunked_logits.h"

namespace graft::models {

/// The side of a head (causal_lm, masked_lm) that gives them.
struct LanguageHead {
  virtual ~LanguageHead() = default;
  /// At the rows of `ends`; where these keep a slot `labels`, at the rows that have one (not -100).
  virtual nn::LogitsOf projection(const std::map<std::string, Activations>& ends) = 0;
  /// Whether forward() computes its loss in chunks, in which another one of the same logits may join.
  virtual bool has_chunks() const { return false; }
  /// Joins the next forward() that learns from labels, and no more: its gradient is added to that of the loss, its value is
  /// not. Rows are those of projection().
  nn::ChunkLoss beside = nullptr;
};

}  // namespace graft::models
