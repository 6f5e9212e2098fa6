// Ridge regression in closed form, and the decomposition behind it.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>

namespace graft::train {

using at::Tensor;

/// The singular value decomposition X = U S V' of a float64 matrix [n, d], from the eigenvectors of the smaller of X'X and
/// XX': at a fraction of its cost, and as exact for singular values that are not tiny.
class Principal {
 public:
  explicit Principal(const Tensor& x);
  /// [r] squared singular values, ascending; r is the smaller of n and d.
  const Tensor& squares() const { return squares_; }
  /// U S, [n, r].
  Tensor scaled() const;
  /// S U' y, [r, k].
  Tensor inner(const Tensor& y) const;
  /// The squares of U' y, [r, k]; 0 in directions that the matrix does not have.
  Tensor projected(const Tensor& y) const;
  /// The squares of W X V, [C, r], for rows that are combinations W [C, n] of the matrix's own.
  Tensor combined(const Tensor& w) const;
  /// The ridge solution (X'X + penalty)^-1 X'y, [d, k].
  Tensor ridge(const Tensor& y, double penalty) const;

 private:
  Tensor x_, squares_, vectors_;
  bool wide_;
};

struct Ridge {
  Tensor weight, bias;  // [k, d], [k] float64: y is about x weight' + bias
  Tensor left_out;      // [n, k]: what each example gets from a fit without it
};

/// Features are standardised first (the solution is given for the features as they are), the bias is free. The penalty is
/// the one, of 1e-3 to 1e2 times n, with the largest `quality` of the leave-one-out predictions, which are exact.
/// x [n, d], y [n, k], float64, n >= 2.
Ridge ridge(const Tensor& x, const Tensor& y, const std::function<double(const Tensor& left_out)>& quality);

}  // namespace graft::train
