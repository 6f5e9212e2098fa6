// The examples of one split, as the first block of a chain wants them. What they are (text, images) stays behind this.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "graft/models/activations.h"

namespace graft::features {

/// Examples of a batch that were blended with one another.
struct Blend {
  std::vector<int64_t> partners;  // places among the examples
  double share = 1;               // of the example itself; its partner has the rest
};

struct Inputs {
  virtual ~Inputs() = default;
  virtual int64_t size() const = 0;
  /// Rows of block 0's output for an example (tokens); batches are made of examples of like length.
  virtual int64_t length(int64_t example) const = 0;
  /// The same for one chain, where chains differ (patches of an image, tokens of its text).
  virtual int64_t rows(const std::string&, int64_t example) const { return length(example); }
  /// Input slots of the chain for these examples, in this order.
  virtual models::Activations batch(const std::string& chain, const std::vector<int64_t>& examples) const = 0;
  /// The same where the first block trains: random views of the examples, if there are such, a function of `view` (not 0)
  /// alone. What is stored is always the plain batch.
  virtual models::Activations batch_view(const std::string& chain, const std::vector<int64_t>& examples,
                                         uint64_t view) const {
    (void)view;
    return batch(chain, examples);
  }
  /// Where views are blended with one another (mixup, cutmix): a function of `view` and the examples alone.
  virtual std::optional<Blend> blend(const std::vector<int64_t>&, uint64_t) const { return {}; }
  /// Says that this view of these examples (0: the plain batch) comes next, so that it can be made ready on other threads.
  virtual void expect(const std::vector<int64_t>&, uint64_t) const {}
  /// Changes when any example's input changes: part of the store's key.
  virtual std::string hash() const = 0;
};

}  // namespace graft::features
