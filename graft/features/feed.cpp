#include "graft/features/feed.h"

#include <algorithm>

#include "graft/models/device.h"

namespace graft::features {

void Feed::use(const std::string& chain, int64_t boundary, Store store) {
  stores_.insert_or_assign({chain, boundary}, std::move(store));
}

void Feed::use_mean(const std::string& chain, int64_t boundary, Store store) {
  means_.insert_or_assign({chain, boundary}, std::move(store));
}

torch::Tensor Feed::mean(const std::string& chain, int64_t boundary, const std::vector<int64_t>& examples) const {
  const auto found = means_.find({chain, boundary});
  if (found != means_.end()) return found->second.read(examples, model_.device()).hidden.values;
  return models::mean_of(enter(chain, boundary, examples, {}).hidden);
}

std::vector<fs::path> Feed::forget_beyond(const std::string& chain, int64_t boundary) {
  std::vector<fs::path> files;
  std::erase_if(stores_, [&](const auto& item) {
    const bool passed = item.first.first == chain && item.first.second > boundary;
    if (passed)
      for (auto& file : item.second.paths()) files.push_back(std::move(file));
    return passed;
  });
  return files;
}

models::Activations Feed::enter(const std::string& chain, int64_t boundary, const std::vector<int64_t>& examples,
                                const models::Reads& reads, uint64_t view) const {
  const torch::NoGradGuard no_grad;
  // Frozen blocks may read another chain's end, which then is frozen too.
  const auto with_upstream = [&](int64_t from, models::Activations x) {
    const auto& c = model_.chain(chain);
    for (const auto& up : c.upstream)
      for (int64_t i = from; i < boundary && !x.kept.contains(up); ++i)
        if (std::find(c.blocks[i].reads.begin(), c.blocks[i].reads.end(), up) != c.blocks[i].reads.end())
          x.kept[up] = enter(up, model_.chain(up).blocks.size(), examples, {}).hidden;
    return x;
  };
  for (int64_t from = boundary; from > 0; --from) {
    const auto found = stores_.find({chain, from});
    if (found == stores_.end()) continue;
    const bool for_head = boundary == static_cast<int64_t>(model_.chain(chain).blocks.size()) && from == boundary;
    auto x = found->second.read(examples, for_head ? models::head_device(model_) : model_.device());
    if (from == boundary) return x;
    return model_.forward(chain, from, boundary, with_upstream(from, std::move(x)), reads);
  }
  if (boundary == 0) return inputs_.batch_view(chain, examples, view);
  auto x = inputs_.batch(chain, examples);
  return model_.forward(chain, 0, boundary, with_upstream(0, std::move(x)), reads);
}

bool Feed::stored_up_to(const std::string& chain, int64_t boundary) const {
  for (; boundary > 0; --boundary)
    if (stored(chain, boundary)) return true;
  return false;
}

int64_t Feed::rows(const std::string& chain, int64_t boundary, int64_t example) const {
  const auto found = stores_.find({chain, boundary});
  return found == stores_.end() ? inputs_.rows(chain, example) : found->second.length(example);
}

}  // namespace graft::features
