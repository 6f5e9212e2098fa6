// What a candidate's frozen chains give for each example (or each labelled word), as a matrix for the scores.
#pragma once

#include <optional>
#include <vector>

#include "graft/data/dataset.h"
#include "graft/features/feed.h"
#include "graft/select/measure.h"
#include "graft/train/task_stream.h"

namespace graft::select {

struct FrozenFeatures {
  Tensor values;                        // [n, d] float32
  std::optional<Tensor> probabilities;  // [n, Z] of the source's own classifier
  Targets targets;
  std::vector<int64_t> words;  // for the task tokens: which word each row is, as word_key() names it, ascending
};

/// Names a word by its example and its place in it.
inline int64_t word_key(int64_t example, int64_t word) { return example << 20 | word; }

/// Where the mean that is measured is taken: at what enters the last block, which is unfrozen first. None where that is
/// block 0, which reads words or pixels, and none for the task tokens, whose examples are single positions.
std::optional<int64_t> mean_boundary(const models::Chain& chain, const std::string& task);

/// Of each chain what the phases start from: its end where the head reads, and the mean over all positions of what
/// enters the last block. A head's position alone says little of a source that was trained to be read elsewhere, or was
/// cut: what is at the other positions is there for the taking, one unfrozen block away. Maps are averaged over their
/// places, and what a head reads at several positions over these. Parts are centred and scaled to a variance of 1.
/// For the task tokens, the end's row of each labelled word's first token is an example. `words`: those that are wanted,
/// ascending; where it is empty, at most `most` of those that this source sees are chosen (sample_examples()) and put
/// there. What a source cuts off is missing in its rows; see keep_common_words().
/// `classifier`: a head of the same model that was trained on the source's own classes, or nullptr; it must read where
/// the model's head reads.
FrozenFeatures frozen_features(models::Model& model, const features::Feed& feed, const std::string& task,
                               const std::vector<std::string>& label_names, const data::Examples& examples,
                               const train::Alignment& alignment, models::Head* classifier, int64_t most, uint64_t seed,
                               std::vector<int64_t>& words);

/// Sources cut texts at different lengths: leaves the words that all of them see, so that they are compared on the same.
void keep_common_words(const std::vector<FrozenFeatures*>& sources);

}  // namespace graft::select
