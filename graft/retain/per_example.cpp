#include "graft/retain/per_example.h"

#include <torch/nn/functional.h>

#include <algorithm>
#include <numeric>

#include "graft/core/error.h"
#include "graft/nn/convolution.h"
#include "graft/nn/layers.h"
#include "graft/nn/rms_norm.h"
#include "graft/nn/tied_linear.h"

namespace graft::retain {
namespace {

constexpr int64_t kChunkValues = int64_t{1} << 23;  // of gradients of single examples that are held at a time

/// (..., C) -> (R, C)
Tensor as_rows(const Tensor& x) { return x.reshape({-1, x.size(-1)}); }

/// The example of each row.
Tensor example_of_rows(const std::vector<int64_t>& starts) {
  std::vector<int64_t> examples;
  examples.reserve(starts.back());
  for (size_t n = 0; n + 1 < starts.size(); ++n) examples.insert(examples.end(), starts[n + 1] - starts[n], n);
  return torch::tensor(examples, torch::kInt64);
}

bool at_most_one_row(const std::vector<int64_t>& starts) {
  for (size_t n = 0; n + 1 < starts.size(); ++n)
    if (starts[n + 1] - starts[n] > 1) return false;
  return true;
}

}  // namespace

void Use::add_example(int64_t n, Tensor& into) const {
  const auto from = starts[n], count = starts[n + 1] - from;
  if (count == 0) return;
  switch (kind) {
    case Kind::matrix:
      into.addmm_(gradient.narrow(0, from, count).t(), read.narrow(0, from, count));
      return;
    case Kind::table:
      into.index_add_(0, read.narrow(0, from, count), gradient.narrow(0, from, count));
      return;
    case Kind::sum:
      into += gradient.narrow(0, from, count).sum(0).view(into.sizes());
      return;
    case Kind::convolution:
      into += torch::bmm(gradient[n], read[n].transpose(1, 2)).view(into.sizes());
      return;
  }
}

void Use::add_squares(Tensor& squares) const {
  if (starts.back() == 0) return;
  const auto B = examples();
  if (kind == Kind::sum) {
    auto sums = torch::zeros({B, gradient.size(1)}, gradient.options());
    sums.index_add_(0, example_of_rows(starts).to(gradient.device()), gradient);
    squares += sums.square_().sum(0).view(squares.sizes());
  } else if (kind == Kind::table) {
    // Rows of one example with one id are summed before they are squared.
    const auto keys = example_of_rows(starts).to(read.device()) * squares.size(0) + read;
    const auto [unique, inverse] = at::_unique(keys, /*sorted=*/true, /*return_inverse=*/true);
    auto sums = torch::zeros({unique.size(0), gradient.size(1)}, gradient.options());
    sums.index_add_(0, inverse, gradient);
    squares.index_add_(0, unique.remainder(squares.size(0)), sums.square_());
  } else if (kind == Kind::convolution) {
    const auto chunk = std::max<int64_t>(1, kChunkValues / squares.numel());
    for (int64_t n = 0; n < B; n += chunk) {
      const auto count = std::min(chunk, B - n);
      const auto g = gradient.narrow(0, n, count).flatten(0, 1), x = read.narrow(0, n, count).flatten(0, 1);
      squares += torch::bmm(g, x.transpose(1, 2)).square_().view({count, -1}).sum(0).view(squares.sizes());
    }
  } else if (at_most_one_row(starts)) {
    squares.addmm_(gradient.square().t(), read.square());
  } else {
    auto one = torch::empty_like(squares);
    for (int64_t n = 0; n < B; ++n) {
      const auto from = starts[n], count = starts[n + 1] - from;
      if (count == 0) continue;
      at::mm_out(one, gradient.narrow(0, from, count).t(), read.narrow(0, from, count));
      squares.addcmul_(one, one);
    }
  }
}

void add_squares(const std::vector<Use>& uses, Tensor& squares) {
  if (uses.size() == 1) return uses.front().add_squares(squares);
  auto one = torch::empty_like(squares);
  for (int64_t n = 0; !uses.empty() && n < uses.front().examples(); ++n) {
    one.zero_();
    for (const auto& use : uses) use.add_example(n, one);
    squares.addcmul_(one, one);
  }
}

/// What one layer did once.
struct Taps::Pass {
  Tensor input, gradient;
  bool passes_on;
};

struct Taps::Listener final : nn::Tap {
  explicit Listener(std::shared_ptr<nn::Attachable> layer) : layer(std::move(layer)) {}
  void record(const Tensor& input, const Tensor& output) override {
    if (!output.requires_grad()) return;
    const auto pass = std::make_shared<Pass>(Pass{input.detach(), {}, input.requires_grad()});
    output.register_hook([pass](const Tensor& gradient) { pass->gradient = gradient.detach(); });
    passes.push_back(pass);
  }
  std::shared_ptr<nn::Attachable> layer;
  std::vector<std::shared_ptr<Pass>> passes;
};

Taps::Taps(models::Model& model) : model_(model) {
  const auto listen = [&](const torch::nn::Module& root) {
    for (const auto& module : root.modules(/*include_self=*/false)) {
      const auto layer = std::dynamic_pointer_cast<nn::Attachable>(module);
      if (!layer || layer->tap) continue;  // a layer may be reached by two paths
      listeners_.push_back(std::make_shared<Listener>(layer));
      layer->tap = listeners_.back();
    }
  };
  listen(model);
  if (model.head) listen(*model.head);
}

Taps::~Taps() {
  for (const auto& listener : listeners_) listener->layer->tap = nullptr;
}

void Taps::forget() {
  for (const auto& listener : listeners_) listener->passes.clear();
}

std::optional<std::map<std::string, std::vector<Use>>> Taps::uses(
    const std::vector<std::vector<int64_t>>& row_lengths) {
  std::map<const void*, std::string> keys;
  for (const auto& item : model_.parameters_by_key()) keys[item.value().unsafeGetTensorImpl()] = item.key();
  std::map<std::string, std::vector<Use>> uses;
  std::vector<std::string> unknown;
  bool ambiguous = false, passes_on = false;

  const auto add = [&](const Tensor& parameter, Use::Kind kind, const Tensor& read, const Tensor& gradient) {
    if (!parameter.defined()) return;
    const auto found = keys.find(parameter.unsafeGetTensorImpl());
    if (found == keys.end()) return;
    const auto rows = gradient.size(0);
    std::vector<int64_t> starts;
    for (const auto& lengths : row_lengths) {
      const auto sum = std::accumulate(lengths.begin(), lengths.end(), int64_t{0});
      if (sum == 0 || rows % sum != 0) continue;
      // Of an example with one row, several may have been made (the patches of an image).
      const bool ones = std::all_of(lengths.begin(), lengths.end(), [](int64_t n) { return n == 1; });
      if (rows != sum && !ones) continue;
      std::vector<int64_t> candidate{0};
      for (const auto n : lengths) candidate.push_back(candidate.back() + n * (rows / sum));
      // Rows that fit the examples' own numbers fit by chance too, when each example is taken for k rows.
      if (!starts.empty() && rows != sum) continue;
      if (!starts.empty() && candidate != starts) ambiguous = true;
      starts = std::move(candidate);
    }
    if (starts.empty()) return unknown.push_back(found->second);
    uses[found->second].push_back({kind, read, gradient, std::move(starts), passes_on && !(kind == Use::Kind::sum)});
  };

  for (const auto& listener : listeners_) {
    for (const auto& pass : listener->passes) {
      if (!pass->gradient.defined()) continue;  // nothing that the loss depends on
      passes_on = pass->passes_on;
      const auto& x = pass->input;
      const auto& g = pass->gradient;
      auto* layer = listener->layer.get();
      const auto affine = [&](const Tensor& weight, const Tensor& bias, const Tensor& normed) {
        add(weight, Use::Kind::sum, {}, g.dim() == 4 ? (g * normed).sum({2, 3}) : as_rows(g * normed));
        add(bias, Use::Kind::sum, {}, g.dim() == 4 ? g.sum({2, 3}) : as_rows(g));
      };
      const auto matrix = [&](const Tensor& weight, const Tensor& bias) {
        add(weight, Use::Kind::matrix, as_rows(x).to(g.scalar_type()), as_rows(g));
        add(bias, Use::Kind::sum, {}, as_rows(g));
      };
      if (auto* linear = dynamic_cast<nn::LinearImpl*>(layer)) matrix(linear->weight, linear->bias);
      else if (auto* tied = dynamic_cast<nn::TiedLinearImpl*>(layer)) matrix(tied->weight, tied->bias);
      else if (auto* table = dynamic_cast<nn::EmbeddingImpl*>(layer)) {
        auto gradient = as_rows(g);
        if (table->padding_id >= 0)  // the padding row does not learn
          gradient = gradient * x.flatten().ne(table->padding_id).unsqueeze(1);
        add(table->weight, Use::Kind::table, x.flatten(), gradient);
      } else if (auto* norm = dynamic_cast<nn::LayerNormImpl*>(layer)) {
        affine(norm->weight, norm->bias, torch::layer_norm(x, {norm->weight.size(0)}, {}, {}, norm->eps));
      } else if (auto* rms = dynamic_cast<nn::RmsNormImpl*>(layer)) {
        affine(rms->weight, {}, torch::rms_norm(x, {rms->weight.size(0)}, {}, rms->eps));
      } else if (auto* batch = dynamic_cast<nn::BatchNormImpl*>(layer)) {
        GRAFT_ASSERT(!batch->is_training(), "statistics of a batch join its examples");
        affine(batch->weight, batch->bias,
               torch::batch_norm(x, {}, {}, batch->running_mean, batch->running_var, false, 0, batch->eps, false));
      } else if (auto* conv = dynamic_cast<nn::Conv2dImpl*>(layer)) {
        const auto& o = conv->options;
        const auto B = x.size(0);
        const auto columns = at::im2col(x, {o.kernel, o.kernel}, {1, 1}, {o.padding, o.padding}, {o.stride, o.stride})
                                 .view({B, o.groups, o.in / o.groups * o.kernel * o.kernel, -1});
        add(conv->weight, Use::Kind::convolution, columns, g.reshape({B, o.groups, o.out / o.groups, -1}));
        add(conv->bias, Use::Kind::sum, {}, g.sum({2, 3}));
      }
    }
    listener->passes.clear();
  }
  if (ambiguous) return std::nullopt;
  for (const auto& key : unknown) uses.erase(key);
  return uses;
}

}  // namespace graft::retain
