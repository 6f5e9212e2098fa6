// Learning-rate schedules: pure functions of the position in [0, 1] of a phase.
#pragma once

#include <algorithm>
#include <cmath>
#include <numbers>

namespace graft::train {

/// 0 to 1 over the first `warmup` part, then linearly down to 0 (Devlin et al. 2019, sec. A.2).
inline double linear_warmup_decay(double position, double warmup) {
  if (warmup > 0 && position < warmup) return position / warmup;
  return std::max(0.0, (1 - position) / (1 - warmup));
}

/// 0 to 1 over the first `warmup` part, then down to 0 by half a cosine (Loshchilov and Hutter 2017, without restarts).
inline double cosine_warmup_decay(double position, double warmup) {
  if (warmup > 0 && position < warmup) return position / warmup;
  return 0.5 * (1 + std::cos(std::numbers::pi * std::min(1.0, (position - warmup) / (1 - warmup))));
}

}  // namespace graft::train
