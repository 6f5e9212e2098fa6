// The examples of one split, as the first block of a chain wants them. What they are (text, images) stays behind this.
#pragma once

#include <string>
#include <vector>

#include "graft/models/activations.h"

namespace graft::features {

struct Inputs {
  virtual ~Inputs() = default;
  virtual int64_t size() const = 0;
  /// Rows of block 0's output for an example (tokens); batches are made of examples of like length.
  virtual int64_t length(int64_t example) const = 0;
  /// The same for one chain, where chains differ (patches of an image, tokens of its text).
  virtual int64_t rows(const std::string&, int64_t example) const { return length(example); }
  /// Input slots of the chain for these examples, in this order.
  virtual models::Activations batch(const std::string& chain, const std::vector<int64_t>& examples) const = 0;
  /// Changes when any example's input changes: part of the store's key.
  virtual std::string hash() const = 0;
};

}  // namespace graft::features
