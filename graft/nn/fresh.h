// Values of fresh parameters, and putting them off: what a file fills need neither be drawn nor be in memory before.
#pragma once

#include <torch/types.h>

#include <functional>
#include <map>

namespace graft::nn {

using Draw = std::function<void(torch::Tensor& parameter)>;

/// Fills a parameter with its fresh value from the default generator; while a PutOff lives, later or never. A second
/// draw of the same parameter takes the place of the first.
void draw_fresh(const torch::Tensor& parameter, Draw draw);
/// A tensor of N(0, deviation) by draw_fresh().
torch::Tensor fresh_normal(c10::IntArrayRef shape, double deviation);

/// While it lives, parameters made by this thread keep memory that nobody has touched, until draw() asks for their value.
class PutOff {
 public:
  PutOff();
  ~PutOff();
  PutOff(const PutOff&) = delete;
  PutOff& operator=(const PutOff&) = delete;
  /// The value that was put off; nothing for a tensor that was filled when it was made.
  void draw(torch::Tensor parameter);

 private:
  friend void draw_fresh(const torch::Tensor&, Draw);
  std::map<const void*, std::pair<torch::Tensor, Draw>>
      draws_;  // by identity; the tensor, so that it stays the only one
  PutOff* outer_;
};

}  // namespace graft::nn
