#include "graft/data/splits.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "graft/core/random.h"

namespace graft::data {
namespace {

using Rows = std::vector<int64_t>;

/// Rows of each stratum in a seeded order.
std::vector<Rows> shuffled_strata(const std::vector<int64_t>& strata, std::string_view purpose, uint64_t seed) {
  std::map<int64_t, Rows> by_stratum;
  for (size_t row = 0; row < strata.size(); ++row) by_stratum[strata[row]].push_back(static_cast<int64_t>(row));
  std::vector<Rows> shuffled;
  for (auto& [stratum, rows] : by_stratum) {
    Random(seed_of(seed, {"split", purpose}, {static_cast<uint64_t>(stratum)})).shuffle(rows);
    shuffled.push_back(std::move(rows));
  }
  return shuffled;
}

/// Shares `total` out by the sizes of the strata (largest remainder), at most `most[i]` for each.
std::vector<int64_t> shares(const std::vector<int64_t>& sizes, const std::vector<int64_t>& most, int64_t total) {
  int64_t rows = 0;
  for (const auto size : sizes) rows += size;
  std::vector<int64_t> taken(sizes.size());
  std::vector<std::pair<double, size_t>> remainders;
  for (size_t i = 0; i < sizes.size(); ++i) {
    const double exact =
        rows ? static_cast<double>(total) * static_cast<double>(sizes[i]) / static_cast<double>(rows) : 0;
    taken[i] = std::min(static_cast<int64_t>(exact), most[i]);
    remainders.emplace_back(exact - static_cast<double>(taken[i]), i);
  }
  int64_t left = total;
  for (const auto count : taken) left -= count;
  std::stable_sort(remainders.begin(), remainders.end(),
                   [](const auto& a, const auto& b) { return a.first > b.first; });
  for (bool moved = true; left > 0 && moved;) {
    moved = false;
    for (const auto& [remainder, i] : remainders)
      if (left > 0 && taken[i] < most[i]) {
        ++taken[i];
        --left;
        moved = true;
      }
  }
  return taken;
}

int64_t part_of(double fraction, size_t rows) { return std::llround(fraction * static_cast<double>(rows)); }

std::vector<Part> split_single_rows(const std::vector<int64_t>& strata, SplitSizes sizes, uint64_t seed) {
  const auto shuffled = shuffled_strata(strata, "rows", seed);
  std::vector<int64_t> counts, most;
  for (const auto& rows : shuffled) {
    counts.push_back(static_cast<int64_t>(rows.size()));
    most.push_back(counts.back() - 1);  // one row of each stratum stays in training
  }
  const auto validation = shares(counts, most, part_of(sizes.validation, strata.size()));
  for (size_t i = 0; i < most.size(); ++i) most[i] -= validation[i];
  const auto test = shares(counts, most, part_of(sizes.test, strata.size()));
  std::vector<Part> parts(strata.size(), Part::train);
  for (size_t i = 0; i < shuffled.size(); ++i)
    for (int64_t k = 0; k < validation[i] + test[i]; ++k)
      parts[shuffled[i][k]] = k < validation[i] ? Part::validation : Part::test;
  return parts;
}

}  // namespace

std::vector<Part> split_rows(const std::vector<int64_t>& strata, const std::vector<uint64_t>& groups, SplitSizes sizes,
                             uint64_t seed) {
  if (groups.empty()) return split_single_rows(strata, sizes, seed);
  std::map<uint64_t, Rows> members;
  for (size_t row = 0; row < groups.size(); ++row) members[groups[row]].push_back(static_cast<int64_t>(row));
  std::vector<Rows> order;
  for (auto& [group, rows] : members) order.push_back(std::move(rows));
  std::sort(order.begin(), order.end());  // by first row, whatever the groups are called
  Random(seed_of(seed, {"split", "groups"})).shuffle(order);
  std::map<int64_t, int64_t> left_in_training;
  for (const auto stratum : strata) ++left_in_training[stratum];
  auto validation = part_of(sizes.validation, strata.size()), test = part_of(sizes.test, strata.size());
  std::vector<Part> parts(strata.size(), Part::train);
  for (const auto& rows : order) {
    const auto size = static_cast<int64_t>(rows.size());
    auto& room = validation >= (size + 1) / 2 ? validation : test;
    if (room < (size + 1) / 2) continue;
    std::map<int64_t, int64_t> taken;
    for (const auto row : rows) ++taken[strata[row]];
    if (std::any_of(taken.begin(), taken.end(), [&](const auto& t) { return left_in_training[t.first] <= t.second; }))
      continue;
    for (const auto& [stratum, count] : taken) left_in_training[stratum] -= count;
    for (const auto row : rows) parts[row] = &room == &validation ? Part::validation : Part::test;
    room -= size;
  }
  return parts;
}

std::vector<int64_t> sample_rows(const std::vector<int64_t>& strata, int64_t count, uint64_t seed) {
  const auto shuffled = shuffled_strata(strata, "sample", seed);
  std::vector<int64_t> counts, most, least(shuffled.size(), 0);
  for (const auto& rows : shuffled) {
    counts.push_back(static_cast<int64_t>(rows.size()));
    most.push_back(counts.back());
  }
  if (count >= static_cast<int64_t>(shuffled.size()))
    for (size_t i = 0; i < shuffled.size(); ++i) {
      least[i] = 1;
      --most[i];
      --counts[i];
      --count;
    }
  const auto more = shares(counts, most, count);
  Rows sample;
  for (size_t i = 0; i < shuffled.size(); ++i)
    sample.insert(sample.end(), shuffled[i].begin(), shuffled[i].begin() + least[i] + more[i]);
  std::sort(sample.begin(), sample.end());
  return sample;
}

}  // namespace graft::data
