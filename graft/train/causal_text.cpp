#include "graft/train/causal_text.h"

#include <algorithm>

#include "graft/core/error.h"
#include "graft/models/device.h"

namespace graft::train {

CausalText::CausalText(models::Model& model, const features::Feed& feed, const data::Ragged<int32_t>& labels)
    : model_(model), feed_(feed), labels_(labels) {
  GRAFT_ASSERT(feed.inputs().size() == labels.size());
}

int64_t CausalText::rows(int64_t example) const {
  const auto& chain = model_.chains.front().name;
  return feed_.rows(chain, model_.boundary(chain), example);
}

std::map<std::string, Activations> CausalText::enter(const std::vector<int64_t>& examples, uint64_t) const {
  const auto& chain = model_.chains.front().name;
  auto x = feed_.enter(chain, model_.boundary(chain), examples, model_.head->reads());
  std::vector<int64_t> labels, lengths;
  for (const auto example : examples) {
    const auto row = labels_[example];
    labels.insert(labels.end(), row.begin(), row.end());
    lengths.push_back(static_cast<int64_t>(row.size()));
  }
  x.kept["labels"] = {models::placed(torch::tensor(labels, torch::kInt64), model_.device()), lengths};
  return {{chain, std::move(x)}};
}

int64_t CausalText::learned(int64_t example) const {
  const auto row = labels_[example];
  return std::count_if(row.begin(), row.end(), [](int32_t label) { return label >= 0; });
}

double CausalText::weight(const std::vector<int64_t>& examples, uint64_t) const {
  int64_t count = 0;
  for (const auto example : examples) count += learned(example);
  return static_cast<double>(count);
}

Tensor CausalText::loss_sum(const Outputs& outputs, const std::vector<int64_t>&, uint64_t) const {
  return outputs.at("loss");
}

Predictions CausalText::predictions() const {
  Predictions p{.task = "causal_lm"};
  p.losses.assign(size(), 0);
  for (int64_t i = 0; i < size(); ++i) p.weights.push_back(static_cast<double>(learned(i)));
  return p;
}

void CausalText::collect(const Outputs& outputs, const std::vector<int64_t>& examples, Predictions& into) const {
  const auto losses = outputs.at("losses").to(torch::kCPU, torch::kFloat64).contiguous();
  const auto* row = losses.const_data_ptr<double>();
  for (const auto example : examples)
    for (int64_t t = 0; t < labels_.length(example); ++t) into.losses[example] += *row++;
}

}  // namespace graft::train
