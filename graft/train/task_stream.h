// The stream that a finetuning task trains on.
#pragma once

#include "graft/train/causal_text.h"
#include "graft/train/supervised.h"

namespace graft::train {

/// What belongs to the inputs of a split beside its labels.
struct Alignment {
  const data::Ragged<int32_t>* first_tokens = nullptr;  // labels on words: place of each word's first token
  const data::Ragged<int32_t>* next_tokens = nullptr;   // causal_lm: what each position predicts
};

/// CausalText for causal_lm, Supervised for every other task. All arguments must outlive the stream.
std::unique_ptr<Stream> task_stream(models::Model& model, const features::Feed& feed, const std::string& task,
                                    const std::vector<std::string>& label_names, const data::Examples& examples,
                                    const Alignment& alignment);

/// The metric that decides when the recipe names none, for `examples` to train on.
std::string default_metric_of(models::Model& model, const features::Feed& feed, const std::string& task,
                              const std::vector<std::string>& label_names, const data::Examples& examples);

}  // namespace graft::train
