// Gradients of single examples from one pass over a batch. Each layer's tap keeps what the layer read and the gradient
// that came back to its output; with these the gradient of any example is one small product, without a pass of its own.
// Source:  Goodfellow 2015, https://arxiv.org/abs/1510.01799 (linear layers); Rochette et al. 2019,
//          https://arxiv.org/abs/1912.06015 (convolutions, by their columns).
// Shapes:  B examples, R rows of all examples, C channels.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "graft/models/model.h"

namespace graft::retain {

using models::Tensor;

/// One way in which a parameter entered the pass. A parameter that is used twice (tied, shared) has two of them, and the
/// gradient of an example is the sum.
struct Use {
  enum class Kind { matrix, table, sum, convolution };
  Kind kind;
  Tensor read;                  // matrix: (R, in); table: ids (R); convolution: columns (B, groups, in/groups*k*k, L)
  Tensor gradient;              // (R, out), (R, C); convolution: (B, groups, out/groups, L)
  std::vector<int64_t> starts;  // B + 1: rows of example n are starts[n] to starts[n + 1]
  bool passes_on = false;       // the layer's input needs a gradient too, so its output has one whatever else learns

  /// Adds the gradient of example `n` to `into`, which has the parameter's shape.
  void add_example(int64_t n, Tensor& into) const;
  /// Adds to `squares` the square of each example's gradient.
  void add_squares(Tensor& squares) const;
  int64_t examples() const { return static_cast<int64_t>(starts.size()) - 1; }
};

/// Listens to all layers of a model and its head while it lives.
class Taps {
 public:
  explicit Taps(models::Model& model);
  ~Taps();
  Taps(const Taps&) = delete;
  Taps& operator=(const Taps&) = delete;

  /// After the backward pass of a batch: the uses of each parameter, by its key. `row_lengths` lists how many rows the
  /// examples may have in a tensor (their tokens; those that the head reads; one each). Parameters are left out whose
  /// layers read rows that belong to no example (a table that all share). nullopt when two of the lists fit equally: then
  /// fewer examples must be taken. Forgets the pass.
  std::optional<std::map<std::string, std::vector<Use>>> uses(const std::vector<std::vector<int64_t>>& row_lengths);
  void forget();

 private:
  struct Pass;
  struct Listener;
  models::Model& model_;
  std::vector<std::shared_ptr<Listener>> listeners_;
};

/// Adds to `squares` the squares of each example's gradient, by the fastest way that its uses permit.
void add_squares(const std::vector<Use>& uses, Tensor& squares);

}  // namespace graft::retain
