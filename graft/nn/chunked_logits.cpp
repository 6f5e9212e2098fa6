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

constexpr int64_t kChunkValues = int64_t{1} << 24, kBlockValues = int64_t{1} << 19;

struct Learns {
  bool hidden, matrix, bias;
  bool any() const { return hidden || matrix || bias; }
};

/// Weights that are kept in half precision, once for all chunks.
Tensor widened(const Tensor& hidden, const Tensor& matrix) {
  return must_widen(hidden, matrix) ? matrix.to(hidden.scalar_type()) : matrix;
}

int64_t rows_of_chunk(const LogitsOf& logits, int64_t wanted) {
  return wanted > 0 ? wanted : std::max<int64_t>(1, kChunkValues / logits.matrix.size(0));
}

/// A GPU has no use for blocks: each is so many kernels more.
int64_t rows_of_block(const Tensor& logits) {
  return logits.device().is_cpu() ? std::max<int64_t>(1, kBlockValues / logits.size(1)) : logits.size(0);
}

/// (n, V), in float32 or float64.
Tensor chunk_of(const LogitsOf& logits, int64_t start, int64_t n) {
  const auto rows = logits.hidden.narrow(0, start, n);
  const auto values = nn::linear(rows, widened(rows, logits.matrix), logits.bias);
  return values.scalar_type() == torch::kFloat64 ? values : values.to(torch::kFloat32);
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
           of_bias = learns.bias ? torch::zeros_like(*bias, wide) : Tensor(), of_matrix;
    for (int64_t start = 0; start < rows; start += chunk_rows) {
      const auto n = std::min(chunk_rows, rows - start);
      auto chunk = chunk_of(logits, start, n);  // each block of it is overwritten by its derivative
      for (int64_t at = 0, most = rows_of_block(chunk); at < n; at += most) {
        const auto values = chunk.narrow(0, at, std::min(most, n - at));
        const auto log_p = values.log_softmax(1);
        const auto of_logits = learns.any() ? values.zero_() : Tensor();
        sum += loss({start + at, start + n, log_p, log_p.exp(), of_logits});
      }
      if (!learns.any()) continue;
      const auto narrow = chunk.to(matrix.scalar_type());
      if (learns.hidden) of_hidden.narrow(0, start, n).copy_(nn::linear(narrow, matrix.t(), Tensor()));
      if (learns.matrix) {
        const auto part = nn::linear(narrow.t(), hidden.narrow(0, start, n).to(matrix.scalar_type()).t(), Tensor());
        if (of_matrix.defined()) of_matrix += part;
        else of_matrix = part;
      }
      if (learns.bias) of_bias += chunk.sum(0);
    }
    if (learns.matrix)
      of_matrix = of_matrix.defined() ? of_matrix.to(kept_matrix.scalar_type()) : torch::zeros_like(kept_matrix);
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

void visit_log_softmax(const LogitsOf& logits, int64_t chunk_rows,
                       const std::function<void(int64_t start, Tensor log_p)>& visit) {
  const auto rows = logits.hidden.size(0), wanted = rows_of_chunk(logits, chunk_rows);
  for (int64_t start = 0; start < rows; start += wanted) {
    const auto chunk = chunk_of(logits, start, std::min(wanted, rows - start));
    for (int64_t at = 0, most = rows_of_block(chunk); at < chunk.size(0); at += most)
      visit(start + at, chunk.narrow(0, at, std::min(most, chunk.size(0) - at)).log_softmax(1));
  }
}

Tensor LogSoftmaxOf::rows(const Block& block) {
  const auto end = block.start + block.log_p.size(0);
  if (!chunk_.defined() || block.start < first_ || end > first_ + chunk_.size(0)) {
    chunk_ = Tensor();  // before the next is there
    chunk_ = chunk_of(logits_, block.start, block.chunk_end - block.start);
    first_ = block.start;
  }
  return chunk_.narrow(0, block.start - first_, end - block.start).log_softmax(1);
}

Tensor chunked_sum(const LogitsOf& logits, const ChunkLoss& loss, int64_t chunk_rows) {
  const auto learns = [](const Tensor& x) { return torch::GradMode::is_enabled() && x.defined() && x.requires_grad(); };
  const auto bias = logits.bias.defined() ? std::optional(logits.bias) : std::nullopt;
  return Chunked::apply(logits.hidden, logits.matrix, bias, loss, rows_of_chunk(logits, chunk_rows),
                        Learns{learns(logits.hidden), learns(logits.matrix), learns(logits.bias)});
}

}  // namespace graft::nn
