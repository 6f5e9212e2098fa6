// What a source model makes of examples: the outputs of its head, or where these mean nothing the features behind its last
// block. Asked once: the answers are kept beside the stores of activations, under a name that is a hash of all that
// they depend on, and in the same layout (`graft cache` lists and verifies them).
// Shapes:  rows of all examples after one another: logits (R, K), one row an example or a token; features (n, C).
#pragma once

#include <filesystem>

#include "graft/features/feed.h"
#include "graft/train/ends.h"

namespace graft::retain {

using models::Tensor;

struct Answers {
  Tensor rows;
  std::vector<int64_t> starts;  // first row of each example, and the number of rows
  bool logits = false;

  /// Rows of these examples, in this order.
  Tensor of(const std::vector<int64_t>& examples) const;
  /// Rows that each of these has.
  std::vector<int64_t> lengths(const std::vector<int64_t>& examples) const;
};

/// The mean of each example's rows, chains side by side: (B, C).
Tensor mean_features(const train::Ends& ends);

/// What the head of a model is asked for; of a task without labels, its features.
bool answers_with_logits(const std::string& task, const models::Reads& head, const models::Reads& reads);

/// Where the answers of `source` to `inputs` are kept in a run's folder of stores; `logits` as above.
std::filesystem::path answers_file(const models::Model& source, const features::Inputs& inputs,
                                   const models::Reads& reads, bool logits, const std::filesystem::path& folder,
                                   const features::StoreOptions& options);

/// Reads `file` where it is whole; else asks `source` (in evaluation mode, some `rows` at a time), through the stores that
/// `feed` has, and writes it. An empty `file`: asks and keeps nothing.
Answers answers(models::Model& source, const features::Feed& feed, const models::Reads& reads, bool logits,
                const std::filesystem::path& file = {}, int64_t rows = 4096);

}  // namespace graft::retain
