// The parameterised layers of every architecture: the ATen call, the checkpoint's names, and two optional
// attachments, an adapter (LoRA) and a tap (inputs and output gradients, for the Fisher).
// The C++ frontend has no hooks; without this seam both would touch every architecture.
//
// Fresh parameters follow transformers: weights N(0, 0.02), biases 0, norms 1 and 0, the padding row 0.
// They draw from the default generator; the caller seeds it.
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>
#include <torch/types.h>

#include <memory>
#include <optional>

namespace graft::nn {

using torch::Tensor;

/// Adds to a layer's output: LoRA's low-rank product, for example.
struct Adapter : torch::nn::Module {
  /// input (N, in), output (N, out) -> (N, out)
  virtual Tensor apply(const Tensor& input, const Tensor& output) = 0;
  /// weight (out, in) -> the weight with what the adapter adds to it, dropout left out.
  virtual Tensor joined(const Tensor& weight) const = 0;
};

/// Sees what a layer reads and, through a hook on its output, the gradient that comes back.
struct Tap {
  virtual ~Tap() = default;
  virtual void record(const Tensor& input, const Tensor& output) = 0;
};

/// What every layer can carry.
struct Attachable : torch::nn::Module {
  void attach(std::shared_ptr<Adapter> adapter);
  std::shared_ptr<Tap> tap;

 protected:
  Tensor attached(const Tensor& input, Tensor output) const;
  std::shared_ptr<Adapter> adapter_;
};

struct LinearImpl : Attachable {
  LinearImpl(int64_t in, int64_t out, bool with_bias = true);
  Tensor forward(const Tensor& x);  // (..., in) -> (..., out)
  /// The weight as forward() has it, adapter and all, for who multiplies by itself (a language head, in chunks).
  Tensor whole_weight() const { return adapter_ ? adapter_->joined(weight) : weight; }
  Tensor weight, bias;  // (out, in), (out)
};
TORCH_MODULE(Linear);

struct EmbeddingImpl : Attachable {
  /// `padding_id`: its row is 0 when fresh and gets no gradient through the look-up.
  EmbeddingImpl(int64_t rows, int64_t width, std::optional<int64_t> padding_id = std::nullopt);
  Tensor forward(const Tensor& ids);  // (N) int64 -> (N, width)
  Tensor weight;                      // (rows, width)
  int64_t padding_id;
};
TORCH_MODULE(Embedding);

struct LayerNormImpl : Attachable {
  LayerNormImpl(int64_t width, double eps);
  Tensor forward(const Tensor& x);  // (..., width)
  Tensor weight, bias;              // (width)
  double eps;
};
TORCH_MODULE(LayerNorm);

}  // namespace graft::nn
