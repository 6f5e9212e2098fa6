// The path between a source's weights and a tuned model's: points between them often keep most of both.
// Paper:  Wortsman et al. 2022, https://arxiv.org/abs/2109.01903 (WiSE-FT).
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "graft/models/model.h"

namespace graft::retain {

using models::Tensor;

struct PathPoint {
  double share;   // of the tuned weights: 0 the source, 1 the tuned model
  double target;  // larger is better, both
  double source;
};

/// Sets the model's floating-point parameters and buffers of these keys to (1 - share) * from + share * to.
/// Keys that `from` lacks (a new head) stay.
void interpolate(models::Model& model, const std::map<std::string, Tensor>& from,
                 const std::map<std::string, Tensor>& to, double share);

/// With a budget: of the points that lose at most that much of the first point's `source`, the one with the best target.
/// Without: of the points whose target is within `tolerance` of the best, the one that keeps most of the source.
/// Ties go to the larger share. `path` begins at share 0.
size_t best_point(const std::vector<PathPoint>& path, double tolerance, std::optional<double> most_forgetting);

}  // namespace graft::retain
