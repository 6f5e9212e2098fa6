// Five small models, one for each way in which a chain is not a straight line (docs/architecture.md):
//   two_towers       an image and a text chain, joined in the head; a norm that both use
//   cross_attention  a vision chain read by the layers of a text chain; "layer i" and "cross i" are groups of one block
//   skips            early states read by the last block and by the head; a buffer that moves in training
//   tied             the head reads the embedding's matrix
//   table            a table of the model, refined once, read by every layer
// Shapes:  B examples, N rows of all examples, C = 8 channels, V = 23 ids.
#pragma once

#include "graft/features/inputs.h"
#include "graft/models/model.h"

namespace graft::tests {

using models::Tensor;

constexpr int64_t kToyWidth = 8, kToyVocabulary = 23, kToyPatch = 3;

/// "two_towers", ...: the same weights for the same seed. `num_labels` is V for the tied one.
std::shared_ptr<models::Model> toy_model(const std::string& name, int64_t num_labels, uint64_t seed,
                                         double dropout = 0.1);
const std::vector<std::string>& toy_names();

/// Random ids (chain "text": 2 to 7) and patches (chains "image" and "vision": 1 to 4) of unequal numbers.
class ToyInputs final : public features::Inputs {
 public:
  ToyInputs(int64_t examples, uint64_t seed);
  int64_t size() const override { return static_cast<int64_t>(ids_.size()); }
  int64_t length(int64_t example) const override { return static_cast<int64_t>(ids_[example].size()); }
  int64_t rows(const std::string& chain, int64_t example) const override;
  models::Activations batch(const std::string& chain, const std::vector<int64_t>& examples) const override;
  std::string hash() const override;
  void change(int64_t example) { ids_[example].back() = (ids_[example].back() + 1) % kToyVocabulary; }

 private:
  std::vector<std::vector<int64_t>> ids_;
  std::vector<Tensor> patches_;
};

}  // namespace graft::tests
