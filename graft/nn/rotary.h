// Rotary positions: pairs of channels (i, i + D/2) turn by position x frequency, in every published scaling.
// Papers:   Su et al. 2021, https://arxiv.org/abs/2104.09864; YaRN: Peng et al. 2023, https://arxiv.org/abs/2309.00071;
//           LongRoPE: Ding et al. 2024, https://arxiv.org/abs/2402.13753
// Source:   transformers 5.17, modeling_rope_utils.py: the same formulas in float32.
// Differs:  where frequencies depend on the length (dynamic, longrope) each example has its own; the reference takes the
//           longest of the batch, so its result depends on the neighbours.
// Shapes:   N tokens, H heads, D width of a head.
#pragma once

#include <torch/types.h>

#include <optional>
#include <string>
#include <vector>

namespace graft::nn {

struct RotaryOptions {
  std::string type = "default";  // default, linear, dynamic, yarn, longrope, llama3, proportional
  int64_t width = 64;            // D
  double theta = 10000, factor = 1;
  int64_t max_positions = 2048, original_max_positions = 2048;
  double low_frequency_factor = 1, high_frequency_factor = 4;  // llama3
  double beta_fast = 32, beta_slow = 1;                        // yarn
  bool truncate = true;                                        // yarn
  std::optional<double> mscale, mscale_all_dim;                // yarn
  std::optional<double> attention_factor;                      // yarn, longrope
  std::vector<double> short_factor, long_factor;               // longrope, D/2 values each
  double turned_part = 1;                                      // proportional
};

/// cos and sin per token, (N, 1, D) float32, the attention factor in them.
struct Rotation {
  torch::Tensor cos, sin;
};

class Rotary {
 public:
  /// Throws Kind::model for an unknown type (lists the known), an odd width and factors of the wrong number.
  explicit Rotary(const RotaryOptions& options);
  /// positions (N) int64 of examples with these lengths, ascending within each.
  Rotation at(const torch::Tensor& positions, const std::vector<int64_t>& lengths) const;
  /// Radians a position, (D/2) float32, for an example of `length` tokens.
  torch::Tensor frequencies(int64_t length) const;

 private:
  bool depends_on_length() const { return options_.type == "dynamic" || options_.type == "longrope"; }
  RotaryOptions options_;
  double attention_factor_ = 1;
  mutable torch::Tensor
      fixed_;  // frequencies of the types that do not depend on the length, where they were asked for last
};

/// x (N, H, D) turned by the rotation.
torch::Tensor rotate(const torch::Tensor& x, const Rotation& rotation);

}  // namespace graft::nn
