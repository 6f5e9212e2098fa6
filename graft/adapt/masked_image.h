// Masked autoencoding as a stream: of each image a quarter of the patches is seen, the rest is given back. Views and masks
// are drawn anew each epoch from the example's number and the epoch alone, so batches and resumption do not change them.
// Paper: He et al. 2022, https://arxiv.org/abs/2111.06377
#pragma once

#include <filesystem>

#include "graft/adapt/objective.h"
#include "graft/data/images/preprocessing.h"
#include "graft/features/inputs.h"
#include "graft/models/mae_decoder.h"

namespace graft::adapt {

class MaskedImages final : public train::Stream {
 public:
  /// `model` has the head of masked_image; both must outlive this.
  MaskedImages(models::Model& model, const features::Inputs& images, uint64_t seed);

  int64_t size() const override { return images_.size(); }
  int64_t rows(int64_t example) const override { return images_.length(example); }
  void expect(const std::vector<int64_t>& examples, uint64_t epoch) const override;
  std::map<std::string, train::Activations> enter(const std::vector<int64_t>& examples, uint64_t epoch) const override;
  /// Patches that are not seen.
  double weight(const std::vector<int64_t>& examples, uint64_t epoch) const override;
  train::Tensor loss_sum(const train::Outputs& outputs, const std::vector<int64_t>& examples,
                         uint64_t epoch) const override;
  train::Predictions predictions() const override { return {.task = "masked_image"}; }
  void collect(const train::Outputs&, const std::vector<int64_t>&, train::Predictions&) const override {}

 private:
  models::Model& model_;
  const features::Inputs& images_;
  uint64_t seed_;
  int64_t patches_, unseen_;  // of an image
};

/// Settings of the paper for a phase: AdamW 0.9/0.95, cosine, the rate by the size of the batch.
void use_paper_settings(const AdaptOptions& options, bool head_alone, train::PhasePlan& plan);

/// The objective over two sets of images, with the file `1.png`, `2.png`, ... of some held-out ones as its samples.
Objective masked_images(models::Model& model, std::shared_ptr<features::Inputs> training,
                        std::shared_ptr<features::Inputs> held_out, const data::Preprocessing& preprocessing,
                        const AdaptOptions& options, uint64_t seed);

}  // namespace graft::adapt
