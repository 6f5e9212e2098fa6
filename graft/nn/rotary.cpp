#include "graft/nn/rotary.h"

#include <algorithm>
#include <cmath>

#include "graft/core/error.h"

namespace graft::nn {
namespace {

using torch::Tensor;

const std::vector<std::string> kTypes{"default", "linear", "dynamic", "yarn", "longrope", "llama3", "proportional"};

/// theta^(2i/d) for i = 0 .. d/2 - 1.
Tensor wavelengths(double theta, int64_t d) {
  return torch::pow(theta, torch::arange(0, d, 2, torch::kInt64).to(torch::kFloat32) / d);
}

/// Wavelengths longer than the original context are stretched, short ones kept, those between interpolated.
Tensor llama3(const RotaryOptions& o) {
  const auto f = 1.0 / wavelengths(o.theta, o.width);
  const auto length = 2 * M_PI / f;
  const double low = o.original_max_positions / o.low_frequency_factor,
               high = o.original_max_positions / o.high_frequency_factor;
  const auto smooth =
      (o.original_max_positions / length - o.low_frequency_factor) / (o.high_frequency_factor - o.low_frequency_factor);
  const auto stretched = torch::where(length > low, f / o.factor, f);
  const auto between = (1 - smooth) * stretched / o.factor + smooth * stretched;
  return torch::where((length >= high).logical_and(length <= low), between, stretched);
}

Tensor yarn(const RotaryOptions& o) {
  const auto d = static_cast<double>(o.width);
  const auto turns_at = [&](double turns) {
    return d * std::log(static_cast<double>(o.original_max_positions) / (turns * 2 * M_PI)) / (2 * std::log(o.theta));
  };
  double low = turns_at(o.beta_fast), high = turns_at(o.beta_slow);
  if (o.truncate) low = std::floor(low), high = std::ceil(high);
  low = std::max(low, 0.0);
  high = std::min(high, d - 1);
  if (low == high) high += 0.001;  // the reference's guard
  const auto ramp = ((torch::arange(o.width / 2, torch::kFloat32) - low) / (high - low)).clamp(0, 1);
  const auto waves = wavelengths(o.theta, o.width);
  return 1.0 / (o.factor * waves) * ramp + 1.0 / waves * (1 - ramp);
}

double yarn_attention(const RotaryOptions& o) {
  const auto scale = [&](double m) { return o.factor <= 1 ? 1.0 : 0.1 * m * std::log(o.factor) + 1; };
  if (o.mscale.value_or(0) != 0 && o.mscale_all_dim.value_or(0) != 0)
    return scale(*o.mscale) / scale(*o.mscale_all_dim);
  return scale(1);
}

}  // namespace

Rotary::Rotary(const RotaryOptions& options) : options_(options) {
  const auto& o = options_;
  GRAFT_CHECK(model, std::find(kTypes.begin(), kTypes.end(), o.type) != kTypes.end(),
              "config.json: the rope type `{}` is not one that graft computes; known are {}.", o.type, listed(kTypes));
  GRAFT_CHECK(model, o.width > 0 && o.width % 2 == 0,
              "config.json: heads are {} wide; rotary positions turn pairs, so the width must be even.", o.width);
  if (o.type == "yarn") attention_factor_ = o.attention_factor.value_or(yarn_attention(o));
  if (o.type == "longrope") {
    const auto pairs = static_cast<size_t>(o.width / 2);
    GRAFT_CHECK(
        model, o.short_factor.size() == pairs && o.long_factor.size() == pairs,
        "config.json: rope type longrope wants short_factor and long_factor of {} values each, found {} and {}.", pairs,
        o.short_factor.size(), o.long_factor.size());
    const double derived =
        o.factor <= 1 ? 1 : std::sqrt(1 + std::log(o.factor) / std::log(static_cast<double>(o.original_max_positions)));
    attention_factor_ = o.attention_factor.value_or(derived);
  }
  if (!depends_on_length()) fixed_ = frequencies(o.max_positions);
}

Tensor Rotary::frequencies(int64_t length) const {
  const auto& o = options_;
  if (fixed_.defined()) return fixed_;
  if (o.type == "linear") return 1.0 / wavelengths(o.theta, o.width) / o.factor;
  if (o.type == "llama3") return llama3(o);
  if (o.type == "yarn") return yarn(o);
  if (o.type == "proportional") {
    const auto turned = static_cast<int64_t>(o.turned_part * static_cast<double>(o.width)) / 2;
    auto f = torch::zeros({o.width / 2});
    f.narrow(0, 0, turned).copy_((1.0 / wavelengths(o.theta, o.width)).narrow(0, 0, turned));
    return f / o.factor;
  }
  if (o.type == "dynamic") {
    const double stretch =
        o.factor * static_cast<double>(std::max(length, o.max_positions)) / static_cast<double>(o.max_positions) -
        (o.factor - 1);
    const auto d = static_cast<double>(o.width);
    return 1.0 / wavelengths(o.theta * std::pow(stretch, d / (d - 2)), o.width);
  }
  if (o.type == "longrope") {
    const auto& factors = length > o.original_max_positions ? o.long_factor : o.short_factor;
    return 1.0 / (torch::tensor(factors, torch::kFloat32) * wavelengths(o.theta, o.width));
  }
  return 1.0 / wavelengths(o.theta, o.width);
}

Rotation Rotary::at(const Tensor& positions, const std::vector<int64_t>& lengths) const {
  const auto device = positions.device();
  const auto angles_of = [&](const Tensor& places, const Tensor& f) {
    return places.to(torch::kFloat32).unsqueeze(1) * f.to(device).unsqueeze(0);  // (n, D/2)
  };
  Tensor angles;
  if (depends_on_length()) {
    std::vector<Tensor> parts;
    int64_t start = 0;
    for (const auto length : lengths) {
      if (length == 0) continue;
      const auto places = positions.narrow(0, start, length);
      parts.push_back(angles_of(places, frequencies(places[length - 1].item<int64_t>() + 1)));
      start += length;
    }
    angles = parts.empty() ? torch::empty({0, options_.width / 2}, torch::device(device)) : torch::cat(parts);
  } else {
    if (fixed_.device() != device) fixed_ = fixed_.to(device);
    angles = angles_of(positions, fixed_);
  }
  const auto both = torch::cat({angles, angles}, 1).unsqueeze(1);  // (N, 1, D)
  return {both.cos() * attention_factor_, both.sin() * attention_factor_};
}

Tensor rotate(const Tensor& x, const Rotation& rotation) {
  const auto halves = x.chunk(2, -1);
  const auto turned = torch::cat({-halves[1], halves[0]}, -1);
  return x * rotation.cos.to(x.scalar_type()) + turned * rotation.sin.to(x.scalar_type());
}

}  // namespace graft::nn
