#include "graft/retain/drift.h"

#include <algorithm>

#include "graft/core/error.h"
#include "graft/core/interrupt.h"
#include "graft/io/tensor_view.h"

namespace graft::retain {
namespace {

constexpr const char* kOtherSize =
    "{} is {} in the source and {} in the tuned model: they are not of one size, so one was not made from the other, "
    "and "
    "what it kept cannot be measured. Give the model that the tuned one was trained from.";

}  // namespace

double linear_cka(const Tensor& x, const Tensor& y) {
  const auto centred = [](const Tensor& t) {
    const auto wide = t.to(torch::kFloat64);
    return wide - wide.mean(0, true);
  };
  const auto a = centred(x), b = centred(y);
  const auto norm = a.t().mm(a).norm() * b.t().mm(b).norm();
  if (norm.item<double>() == 0) return 0;
  return (b.t().mm(a).square().sum() / norm).item<double>();
}

Seen observe(models::Model& model, const features::Inputs& inputs, const std::vector<int64_t>& examples, int64_t rows) {
  const torch::NoGradGuard no_grad;
  const bool was_training = model.is_training();
  model.eval();
  std::vector<Tensor> features, choices;
  for (size_t i = 0; i < examples.size();) {
    stop_if_interrupted();
    std::vector<int64_t> batch;
    for (int64_t sum = 0; i < examples.size() && (batch.empty() || sum + inputs.length(examples[i]) <= rows); ++i) {
      batch.push_back(examples[i]);
      sum += inputs.length(examples[i]);
    }
    std::map<std::string, models::Activations> ends;
    for (const auto& chain : model.chains) {
      auto x = inputs.batch(chain.name, batch);
      for (const auto& up : chain.upstream) x.kept[up] = ends.at(up).hidden;
      x = model.forward(chain.name, 0, static_cast<int64_t>(chain.blocks.size()), std::move(x), {});
      ends[chain.name] = std::move(x);
    }
    const auto& hidden = ends.at(model.chains.back().name).hidden;
    const auto& values = hidden.values;
    const auto B = static_cast<int64_t>(hidden.lengths.size());
    if (values.dim() == 4) {
      features.push_back(values.mean({2, 3}));
    } else if (values.size(0) % B == 0 &&
               std::all_of(hidden.lengths.begin(), hidden.lengths.end(), [](int64_t n) { return n == 1; })) {
      features.push_back(values.view({B, values.size(0) / B, -1}).mean(1));  // the patches of an image
    } else {
      std::vector<Tensor> means;
      for (const auto& part : values.split_with_sizes(hidden.lengths)) means.push_back(part.mean(0));
      features.push_back(torch::stack(means));
    }
    for (auto& item : ends) {
      const auto index = models::resolve(model.head->reads(), item.second.hidden.lengths, model.device());
      if (index.index.defined())
        item.second.hidden = {item.second.hidden.values.index_select(0, index.index), index.lengths};
    }
    const auto outputs = model.head->forward(ends);
    if (const auto found = outputs.find("logits"); found != outputs.end()) choices.push_back(found->second.argmax(-1));
  }
  model.train(was_training);
  return {torch::cat(features), choices.empty() ? Tensor() : torch::cat(choices)};
}

double agreement(const Tensor& a, const Tensor& b) {
  GRAFT_ASSERT(a.sizes() == b.sizes());
  return a.eq(b).to(torch::kFloat64).mean().item<double>();
}

namespace {

/// Pairs of what stands for the same in both models: (the probe's, the model's).
std::vector<std::pair<Tensor, Tensor>> shared(const models::Model& probe, const models::Model& model, bool head) {
  const auto tensors = [](const models::Model& of) {
    std::map<std::string, Tensor> all;
    for (const auto& items : {of.parameters_by_key(), of.buffers_by_key()})
      for (const auto& item : items) all[item.key()] = item.value();
    return all;
  };
  const auto mine = tensors(probe), theirs = tensors(model);
  const auto shape = [](const Tensor* t) { return t ? io::shape_text(t->sizes().vec()) : std::string("missing"); };
  std::vector<std::pair<Tensor, Tensor>> pairs;
  for (const auto& [key, tensor] : mine) {
    const bool of_head = probe.group_of(key) == "head";
    if (!head && of_head) continue;
    const auto found = theirs.find(key);
    const auto* other = found == theirs.end() ? nullptr : &found->second;
    const bool fits = other && other->sizes() == tensor.sizes();
    GRAFT_CHECK(model, fits || of_head, kOtherSize, key, shape(&tensor), shape(other));
    if (fits) pairs.emplace_back(tensor, *other);
  }
  for (const auto& [key, tensor] : theirs)
    GRAFT_CHECK(model, mine.contains(key) || model.group_of(key) == "head", kOtherSize, key, "missing", shape(&tensor));
  return pairs;
}

}  // namespace

BorrowedBlocks::BorrowedBlocks(models::Model& probe, const models::Model& model, bool head) {
  const torch::NoGradGuard no_grad;
  for (const auto& [mine, theirs] : shared(probe, model, head)) {
    own_.emplace_back(mine, mine.detach());
    own_.back().first.set_data(theirs.detach());
  }
}

BorrowedBlocks::~BorrowedBlocks() {
  const torch::NoGradGuard no_grad;
  for (auto& [parameter, held] : own_) parameter.set_data(held);
}

void release_blocks(models::Model& probe, const models::Model& model, bool head) {
  const torch::NoGradGuard no_grad;
  for (auto& [mine, theirs] : shared(probe, model, head)) {
    auto parameter = mine;
    parameter.set_data(torch::zeros({1}, mine.options()).as_strided(mine.sizes(), std::vector<int64_t>(mine.dim(), 0)));
  }
}

}  // namespace graft::retain
