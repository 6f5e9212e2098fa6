#include "graft/nn/chunked_logits.h"

#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "graft/nn/half_weights.h"
#include "graft/nn/linear.h"

namespace graft::nn {
namespace {

using torch::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::tensor_list;

constexpr int64_t kChunkValues = int64_t{1} << 24;

struct Learns {
  bool hidden, matrix, bias;
  bool any() const { return hidden || matrix || bias; }
};

/// Weights that are kept in half precision, once for all chunks.
Tensor widened(const Tensor& hidden, const Tensor& matrix) {
  return must_widen(hidden, matrix) ? matrix.to(hidden.scalar_type()) : matrix;
}

struct Chunked : torch::autograd::Function<Chunked> {
  static Tensor forward(AutogradContext* context, const Tensor& hidden, const Tensor& kept_matrix,
                        const std::optional<Tensor>& bias, const ChunkLoss& loss, int64_t chunk_rows, Learns learns) {
    const auto matrix = widened(hidden, kept_matrix);
    const LogitsOf logits{hidden, matrix, bias.value_or(Tensor())};
    const auto rows = hidden.size(0);
    const auto wide = hidden.scalar_type() == torch::kFloat64 ? torch::kFloat64 : torch::kFloat32;
    auto sum = torch::zeros({}, hidden.options().dtype(wide));
    Tensor of_hidden = learns.hidden ? torch::empty_like(hidden) : Tensor(),
           of_matrix = learns.matrix ? torch::zeros_like(matrix) : Tensor(),
           of_bias = learns.bias ? torch::zeros_like(*bias, wide) : Tensor();
    for (int64_t start = 0; start < rows; start += chunk_rows) {
      const auto n = std::min(chunk_rows, rows - start);
      Tensor of_logits;
      sum += loss(start, chunk_log_softmax(logits, start, n), learns.any() ? &of_logits : nullptr);
      if (!learns.any()) continue;
      const auto narrow = of_logits.to(matrix.scalar_type());
      if (learns.hidden) of_hidden.narrow(0, start, n).copy_(nn::linear(narrow, matrix.t(), Tensor()));
      if (learns.matrix)
        of_matrix += nn::linear(narrow.t(), hidden.narrow(0, start, n).to(matrix.scalar_type()).t(), Tensor());
      if (learns.bias) of_bias += of_logits.sum(0);
    }
    if (learns.matrix) of_matrix = of_matrix.to(kept_matrix.scalar_type());
    if (learns.bias) of_bias = of_bias.to(bias->scalar_type());
    context->save_for_backward({of_hidden, of_matrix, of_bias});
    return sum;
  }

  static tensor_list backward(AutogradContext* context, tensor_list gradients) {
    const auto saved = context->get_saved_variables();
    const auto scaled = [&](const Tensor& x) { return x.defined() ? x * gradients[0].to(x.scalar_type()) : Tensor(); };
    return {scaled(saved[0]), scaled(saved[1]), scaled(saved[2]), {}, {}, {}};
  }
};

}  // namespace

Tensor chunk_log_softmax(const LogitsOf& logits, int64_t start, int64_t n) {
  const auto rows = logits.hidden.narrow(0, start, n);
  const auto values = nn::linear(rows, widened(rows, logits.matrix), logits.bias);
  return (values.scalar_type() == torch::kFloat64 ? values : values.to(torch::kFloat32)).log_softmax(1);
}

int64_t rows_of_chunk(const LogitsOf& logits, int64_t wanted) {
  return wanted > 0 ? wanted : std::max<int64_t>(1, kChunkValues / logits.matrix.size(0));
}

Tensor chunked_sum(const LogitsOf& logits, const ChunkLoss& loss, int64_t chunk_rows) {
  const auto learns = [](const Tensor& x) { return torch::GradMode::is_enabled() && x.defined() && x.requires_grad(); };
  const auto bias = logits.bias.defined() ? std::optional(logits.bias) : std::nullopt;
  return Chunked::apply(logits.hidden, logits.matrix, bias, loss, rows_of_chunk(logits, chunk_rows),
                        Learns{learns(logits.hidden), learns(logits.matrix), learns(logits.bias)});
}

}  // namespace graft::nn
