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
  /// The same for several sources that prepare images differently: each image is decoded once for all of them, and one
  /// that any of them cannot use is left out of all. The first of `tasks` has read the examples.
  static std::vector<Prepared> prepare_all(const models::Model& model, const std::vector<ImageTask*>& tasks,
                                           data::Examples& examples, const Wanted& wanted);
  /// Where the images lie that read() found, for another source on the same data.
  std::shared_ptr<data::ImageFiles> image_files() const { return files_; }
  void use(std::shared_ptr<data::ImageFiles> files) { files_ = std::move(files); }
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
