#include "graft/retain/interpolation.h"

#include <algorithm>

#include "graft/core/error.h"

namespace graft::retain {

void interpolate(models::Model& model, const std::map<std::string, Tensor>& from,
                 const std::map<std::string, Tensor>& to, double share) {
  const torch::NoGradGuard no_grad;
  for (auto items : {model.parameters_by_key(), model.buffers_by_key()})
    for (auto& item : items) {
      const auto a = from.find(item.key()), b = to.find(item.key());
      if (a == from.end() || b == to.end() || a->second.sizes() != item.value().sizes()) continue;
      if (!item.value().is_floating_point()) continue;
      // The ends are the weights themselves, not what rounding makes of them.
      if (share == 0 || share == 1) item.value().copy_(share == 0 ? a->second : b->second);
      else item.value().copy_(torch::lerp(a->second.to(torch::kFloat32), b->second.to(torch::kFloat32), share));
    }
}

size_t best_point(const std::vector<PathPoint>& path, double tolerance, std::optional<double> most_forgetting) {
  GRAFT_ASSERT(!path.empty() && path.front().share == 0);
  double best_target = path.front().target;
  for (const auto& point : path) best_target = std::max(best_target, point.target);
  const auto allowed = [&](const PathPoint& point) {
    return most_forgetting ? path.front().source - point.source <= *most_forgetting + 1e-12
                           : best_target - point.target <= tolerance;
  };
  const auto value = [&](const PathPoint& point) { return most_forgetting ? point.target : point.source; };
  size_t best = path.size();
  for (size_t i = 0; i < path.size(); ++i)
    if (allowed(path[i]) && (best == path.size() || value(path[i]) >= value(path[best]))) best = i;
  return best;
}

}  // namespace graft::retain
