#include "graft/models/activations.h"

#include "graft/core/error.h"
#include "graft/models/device.h"
#include "graft/nn/autocast.h"

namespace graft::models {

ReadIndex resolve(const Reads& reads, const std::vector<int64_t>& lengths, torch::Device device) {
  if (reads.where == Reads::Where::all) return {{}, lengths};
  if (reads.where == Reads::Where::listed) return {placed(reads.index, device), reads.lengths};
  std::vector<int64_t> rows;
  int64_t start = 0;
  for (const auto length : lengths) {
    rows.push_back(reads.where == Reads::Where::first ? start : start + length - 1);
    start += length;
  }
  return {placed(torch::tensor(rows, torch::kInt64), device), std::vector<int64_t>(lengths.size(), 1)};
}

Tensor mean_of(const Rows& rows) {
  const auto values = nn::widened(rows.values);
  if (values.dim() > 2) return values.mean({2, 3});
  const auto B = static_cast<int64_t>(rows.lengths.size());
  if (values.size(0) == B) return values;
  const auto lengths = placed(torch::tensor(rows.lengths, torch::kInt64), values.device());
  const auto example = torch::repeat_interleave(lengths);
  return torch::zeros({B, values.size(1)}, values.options()).index_add(0, example, values) /
         lengths.clamp_min(1).unsqueeze(1);
}

Rows select(const Rows& rows, const std::vector<int64_t>& order) {
  std::vector<int64_t> starts(rows.lengths.size() + 1, 0);
  for (size_t i = 0; i < rows.lengths.size(); ++i) starts[i + 1] = starts[i] + rows.lengths[i];
  Rows selected;
  std::vector<Tensor> parts;
  for (const auto example : order) {
    parts.push_back(rows.values.narrow(0, starts[example], rows.lengths[example]));
    selected.lengths.push_back(rows.lengths[example]);
  }
  selected.values = torch::cat(parts);
  return selected;
}

}  // namespace graft::models
