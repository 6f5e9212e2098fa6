// Which examples the candidates are measured on: in proportion to the classes, but rare classes keep what scores need.
#pragma once

#include <string>
#include <vector>

#include "graft/data/dataset.h"

namespace graft::select {

constexpr int64_t kFewest = 5;  // examples of a class: the linear probe has as many parts

/// About `count` examples in ascending order, in proportion to data::strata_of(), with at least min(5, its number) of each
/// label (of each word's label, for the task tokens): then there may be more than `count`. A function of the data and the
/// seed. All of them where there are no more than `count`.
std::vector<int64_t> sample_examples(const data::Examples& examples, const std::string& task, int64_t labels,
                                     int64_t count, uint64_t seed);

/// Throws Kind::data naming the labels that have fewer than 5 of these examples (labelled words, for tokens), or, for
/// regression, that there are fewer than 10 examples: what scores need.
void expect_enough(const data::Examples& examples, const std::string& task,
                   const std::vector<std::string>& label_names);

}  // namespace graft::select
