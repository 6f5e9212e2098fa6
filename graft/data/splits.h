// Which rows go to validation and test: a function of the data and the seed alone.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace graft::data {

struct SplitSizes {
  double validation = 0, test = 0;  // parts of the rows
};

enum class Part : uint8_t { train, validation, test };

/// One part for each row. `strata`: rows with equal values are shared out in proportion; no stratum leaves training.
/// `groups`: empty, or rows with equal values go to one part.
std::vector<Part> split_rows(const std::vector<int64_t>& strata, const std::vector<uint64_t>& groups, SplitSizes sizes,
                             uint64_t seed);

/// `count` rows in ascending order, strata in proportion, each stratum kept where count allows it.
std::vector<int64_t> sample_rows(const std::vector<int64_t>& strata, int64_t count, uint64_t seed);

}  // namespace graft::data
