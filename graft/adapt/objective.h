// What adaptation trains: the corpus as two streams, for the objective that the source was pretrained with.
#pragma once

#include "graft/adapt/options.h"
#include "graft/data/language/options.h"
#include "graft/data/tokenizers/tokenizer.h"
#include "graft/train/phase.h"

namespace graft::adapt {

struct Objective {
  std::string name;              // masked_lm, causal_lm, masked_image
  std::shared_ptr<void> corpus;  // what the streams read
  std::shared_ptr<train::Stream> training, held_out;
  Json counts;                  // documents, held_out_documents, sequences; images, held_out_images
  std::string title, material;  // for people: "masked language modelling", "200 documents in 31 sequences"
  bool perplexity = true;       // the exponential of the loss means something
  /// The same corpus as a stream for another model of the family; empty for images.
  std::function<std::shared_ptr<train::Stream>(models::Model& model, bool held_out)> stream_on = {};
  /// What the objective's paper trains a phase with; empty: the recipe's settings.
  std::function<void(bool head_alone, train::PhasePlan& plan)> settings = {};
  /// Writes what the model makes of some held-out examples, for people to look at; may be empty.
  std::function<void(const std::filesystem::path& folder)> write_samples = {};
};

/// Reads the corpus for `model`, whose head is of `name`. `vocab_size`: rows of the model's embedding.
/// Throws Kind::data: no documents, none held out, a row that cannot be used; Kind::model: a token that is missing.
Objective read_objective(const std::string& name, models::Model& model, const data::Tokenizer& tokenizer,
                         int64_t vocab_size, const AdaptOptions& options, int64_t max_length, uint64_t seed,
                         const data::LanguageOptions& language = {});

}  // namespace graft::adapt
