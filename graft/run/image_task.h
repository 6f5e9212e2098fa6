// Image data made ready for a model: files decoded and prepared as the source's own preprocessing says.
#pragma once

#include "graft/data/images/image_dataset.h"
#include "graft/features/image_inputs.h"
#include "graft/run/task_inputs.h"

namespace graft::run {

class ImageTask final : public TaskInputs {
 public:
  /// Throws Kind::model when the source does not say how its images are prepared.
  ImageTask(const models::Source& source, data::ImageOptions options);

  /// The decoder's sizes, where the source has none, and the recipe's mask and targets.
  void settle_adaptation(models::Source& source, const adapt::AdaptOptions& options) const override;
  adapt::Objective objective(models::Model& model, const models::Source& source, const adapt::AdaptOptions& options,
                             uint64_t seed, const std::function<void(int64_t, int64_t)>& progress) override;
  data::Dataset read(const data::DataOptions& options, uint64_t seed,
                     const std::vector<std::string>& label_names) override;
  data::Examples list(const std::vector<std::string>& given) override;
  Prepared prepare(const models::Model& model, data::Examples& examples, const Wanted& wanted) override;
  Json settings(const models::Model& model) const override;
  std::map<std::string, std::string> files(const models::Model& model) const override;
  bool of_images() const override { return true; }

 private:
  int64_t patch_side() const;
  int64_t channels() const;

  const models::Source& source_;
  data::ImageOptions options_;
  data::Preprocessing preprocessing_;
  std::shared_ptr<data::ImageFiles> files_;
};

}  // namespace graft::run
