#include "graft/features/feed.h"

namespace graft::features {

void Feed::use(const std::string& chain, int64_t boundary, Store store) {
  stores_.insert_or_assign({chain, boundary}, std::move(store));
}

models::Activations Feed::enter(const std::string& chain, int64_t boundary, const std::vector<int64_t>& examples,
                                const models::Reads& reads) const {
  for (int64_t from = boundary; from > 0; --from) {
    const auto found = stores_.find({chain, from});
    if (found == stores_.end()) continue;
    auto x = found->second.read(examples, model_.device());
    if (from == boundary) return x;
    const torch::NoGradGuard no_grad;
    return model_.forward(chain, from, boundary, std::move(x), reads);
  }
  auto x = inputs_.batch(chain, examples);
  if (boundary == 0) return x;
  const torch::NoGradGuard no_grad;
  return model_.forward(chain, 0, boundary, std::move(x), reads);
}

int64_t Feed::rows(const std::string& chain, int64_t boundary, int64_t example) const {
  const auto found = stores_.find({chain, boundary});
  return found == stores_.end() ? inputs_.length(example) : found->second.length(example);
}

}  // namespace graft::features
