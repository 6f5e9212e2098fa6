#include "graft/select/sample.h"

#include <algorithm>
#include <numeric>

#include "graft/core/error.h"
#include "graft/core/random.h"
#include "graft/data/splits.h"

namespace graft::select {
namespace {

/// The labels of an example, each as often as it has it.
std::vector<int64_t> labels_of(const data::Examples& examples, const std::string& task, int64_t row) {
  if (task == "classification") return {examples.labels[row]};
  if (task == "regression") return {};
  const auto set = examples.label_sets[row];
  return {set.begin(), set.end()};
}

std::vector<int64_t> label_counts(const data::Examples& examples, const std::string& task, int64_t labels) {
  std::vector<int64_t> counts(labels, 0);
  for (const auto label : examples.labels) ++counts.at(label);
  if (task == "multilabel" || task == "tokens")
    for (int64_t row = 0; row < examples.label_sets.size(); ++row)
      for (const auto label : examples.label_sets[row])
        if (label >= 0) ++counts.at(label);
  return counts;
}

}  // namespace

std::vector<int64_t> sample_examples(const data::Examples& examples, const std::string& task, int64_t labels,
                                     int64_t count, uint64_t seed) {
  const auto strata = data::strata_of(examples, task, static_cast<size_t>(labels));
  const auto n = static_cast<int64_t>(strata.size());
  std::vector<int64_t> all(n);
  std::iota(all.begin(), all.end(), 0);
  if (n <= count) return all;
  std::vector<char> taken(n, 0);
  for (const auto row : data::sample_rows(strata, count, seed)) taken[row] = 1;
  if (task == "regression") {
    std::erase_if(all, [&](int64_t row) { return !taken[row]; });
    return all;
  }
  const auto total = label_counts(examples, task, labels);
  std::vector<int64_t> have(labels, 0);
  const auto give = [&](int64_t row, int64_t sign) {
    for (const auto label : labels_of(examples, task, row))
      if (label >= 0) have[label] += sign;
  };
  for (int64_t row = 0; row < n; ++row)
    if (taken[row]) give(row, 1);
  auto order = all;
  Random(seed_of(seed, {"select", "rare labels"})).shuffle(order);
  int64_t extra = 0;
  for (const auto row : order) {
    const auto own = labels_of(examples, task, row);
    const bool lacking = std::any_of(own.begin(), own.end(), [&](int64_t label) {
      return label >= 0 && have[label] < std::min(kFewest, total[label]);
    });
    if (taken[row] || !lacking) continue;
    taken[row] = 1;
    give(row, 1);
    ++extra;
  }
  // As many go as came, of labels that have more than they need.
  for (const auto row : order) {
    if (extra == 0) break;
    if (!taken[row]) continue;
    give(row, -1);
    const auto own = labels_of(examples, task, row);
    const bool spare = std::all_of(own.begin(), own.end(), [&](int64_t label) {
      return label < 0 || have[label] >= std::min(kFewest, total[label]);
    });
    if (spare) taken[row] = 0, --extra;
    else give(row, 1);
  }
  std::erase_if(all, [&](int64_t row) { return !taken[row]; });
  return all;
}

void expect_enough(const data::Examples& examples, const std::string& task,
                   const std::vector<std::string>& label_names) {
  if (task == "regression") {
    GRAFT_CHECK(data, static_cast<int64_t>(examples.values.size()) >= 2 * kFewest,
                "too few training examples to measure sources with: {} are needed, there are {}. Add examples, or name "
                "a source yourself.",
                2 * kFewest, examples.values.size());
    return;
  }
  const auto counts = label_counts(examples, task, static_cast<int64_t>(label_names.size()));
  std::vector<std::string> few;
  for (size_t i = 0; i < counts.size(); ++i)
    if (counts[i] < kFewest) few.push_back(fmt::format("{} ({})", label_names[i], counts[i]));
  GRAFT_CHECK(data, few.empty(),
              "too few training {} to measure sources with: {} of each {} are needed, and these have fewer: {}. "
              "Add examples, merge or remove the {}, or name a source yourself.",
              task == "tokens" ? "words" : "examples", kFewest, task == "classification" ? "class" : "label",
              listed(few), task == "classification" ? "classes" : "labels");
}

}  // namespace graft::select
