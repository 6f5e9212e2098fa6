// Which of the source's examples are kept for replay, when not all can be.
// Papers:  reservoir sampling: Vitter 1985, https://doi.org/10.1145/3147.3165, algorithm R; herding: Rebuffi et al. 2017 (iCaRL),
//          https://arxiv.org/abs/1611.07725, algorithm 4.
// Shapes:  n examples, C channels. What is returned is ascending.
#pragma once

#include <cstdint>
#include <vector>

#include <torch/types.h>

namespace graft::retain {

/// `count` of n examples, each with the same chance, in one pass over them. 0: all.
std::vector<int64_t> reservoir(int64_t n, int64_t count, uint64_t seed);

/// `count` of the examples with these labels, as many of each as there can be, seeded. 0: all.
std::vector<int64_t> balanced(const std::vector<int64_t>& labels, int64_t count, uint64_t seed);

/// As many of each label as there can be; of each, one after another that brings the mean of those chosen closest to the
/// mean of all, in features (n, C) of length 1 as in the paper. 0: all.
std::vector<int64_t> herded(const torch::Tensor& features, const std::vector<int64_t>& labels, int64_t count);

}  // namespace graft::retain
