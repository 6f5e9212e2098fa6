// What the laws are tested on: the toys and every architecture with every head, tiny, with examples and labels.
#pragma once

#include <algorithm>

#include "graft/features/text_inputs.h"
#include "graft/models/architectures.h"
#include "graft/train/phase.h"
#include "graft/train/supervised.h"
#include "tests/models/toy_models.h"

namespace graft::tests {

/// A model with two splits of 12 and 6 examples, and their labels.
struct Case {
  /// "two_towers", "bert_tokens", ...
  explicit Case(const std::string& name, uint64_t seed = 1, double dropout = 0.1);

  std::string name, task;
  const models::Architecture* architecture = nullptr;  // null for a toy
  std::shared_ptr<models::Model> model;
  std::unique_ptr<features::Inputs> inputs, validation_inputs;
  std::vector<std::string> label_names;
  data::Examples examples, validation_examples;
  data::Ragged<int32_t> first_tokens, validation_first_tokens;

  train::Supervised stream(const features::Feed& feed) const {
    return {*model, feed, task, label_names, examples, &first_tokens};
  }
  train::Supervised validation(const features::Feed& feed) const {
    return {*model, feed, task, label_names, validation_examples, &validation_first_tokens};
  }
};

std::vector<std::string> case_names();
/// A name as GoogleTest takes it: "deberta-v2_tokens" has a dash.
inline std::string test_name(std::string name) {
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

/// The names of all groups, the head's too.
std::set<std::string> all_groups(const models::Model& model);
/// Sets of groups to train: the head, each group alone, each suffix, the first group and the head, all.
std::vector<std::set<std::string>> trainable_sets(const models::Model& model);

/// Equal bytes, shapes and types.
bool same(const torch::Tensor& a, const torch::Tensor& b);
/// Copies of parameters and buffers by key.
std::map<std::string, torch::Tensor> tensors_of(const models::Model& model);
/// max |a - b| / max |b|.
double relative_difference(const torch::Tensor& a, const torch::Tensor& b);

}  // namespace graft::tests
