// Images as inputs of an image chain: slot "pixel_values", (B, 3, H, W) with a length of 1 each; of many bands as many channels.
#pragma once

#include <functional>
#include <future>
#include <memory>
#include <optional>

#include "graft/data/images/augment.h"
#include "graft/data/images/image_files.h"
#include "graft/data/images/options.h"
#include "graft/data/images/preprocessing.h"
#include "graft/data/table.h"
#include "graft/features/inputs.h"
#include "graft/models/model.h"

namespace graft::features {

class ImageInputs final : public Inputs {
 public:
  /// `model` says on which device batches are made; nothing else of it decides what they hold.
  ImageInputs(const models::Model& model, data::Preprocessing preprocessing, data::ImageOptions options);

  /// Decodes and prepares the images on all cores. A bad one stops (Kind::data, the first of `names`), or is left out and
  /// counted in `skipped`. Returns the rows of `names` that were taken: with augmentation and several views all of them
  /// again for each further view, which is made now and stays as it is. `progress(done, total)`.
  std::vector<int64_t> add(std::shared_ptr<const data::ImageFiles> files, const data::Ragged<char>& names,
                           data::BadRows bad_rows, data::SkippedRows& skipped,
                           const std::function<void(int64_t, int64_t)>& progress = {});

  struct Added {
    std::vector<int64_t> rows;
    int64_t decoded = 0;  // how often an image was decoded
  };
  /// add() for several preparations at once: an image is decoded once for those that decode alike (all, unless one turns
  /// images by their EXIF entry, takes BioViL's range, or decodes fast), and one that any cannot use is left out of all.
  /// All of them have the same augment().
  static Added add_all(const std::vector<ImageInputs*>& several, const std::shared_ptr<const data::ImageFiles>& files,
                       const data::Ragged<char>& names, data::BadRows bad_rows, data::SkippedRows& skipped,
                       const std::function<void(int64_t, int64_t)>& progress = {});

  int64_t size() const override { return names_.size(); }
  /// What an image costs: its patches of 16 x 16, the same for all.
  int64_t length(int64_t) const override;
  models::Activations batch(const std::string& chain, const std::vector<int64_t>& examples) const override;
  std::string hash() const override { return hash_; }
  /// Before add(): random views of the images, seeded by `seed`, the view and the example; else views are the plain images.
  void augment(const data::AugmentOptions& options, uint64_t seed) { augment_ = options, seed_ = seed; }
  /// Before add(): images with a side below this are refused; one patch of the model, for example.
  void least_side(int64_t pixels) { least_side_ = pixels; }
  models::Activations batch_view(const std::string& chain, const std::vector<int64_t>& examples,
                                 uint64_t view) const override;
  std::optional<Blend> blend(const std::vector<int64_t>& examples, uint64_t view) const override;
  void expect(const std::vector<int64_t>& examples, uint64_t view) const override;

  /// How far fast decoding moves a sample on average, in levels of 255, over the first `count` examples.
  double fast_decode_deviation(int64_t count) const;
  /// The prepared image, 8 bits. Kind::usage for models of other than three channels: nothing shows their bands.
  data::Image image(int64_t example) const;

 private:
  using Images = std::vector<std::vector<uint8_t>>;  // as kept: 8-bit samples, or float32 values of many bands
  struct Ahead {
    std::vector<int64_t> examples;
    uint64_t view = 0;
    std::shared_future<Images> images;
  };
  /// A pasted rectangle in `box`; without width the images are blended as wholes.
  std::optional<Blend> drawn_blend(const std::vector<int64_t>& examples, uint64_t view, data::Box& box) const;
  data::Image decoded(const std::string& name, bool fast) const;
  /// Equal for preparations whose decoded images are equal.
  std::string decoding(int64_t copy) const;
  /// The plain image, or one of the further views that stay.
  data::Image prepared(const data::Image& decoded, const std::string& name, int64_t row, int64_t copy) const;
  /// The same of a file, as it is kept: 8-bit samples, or the values of many bands.
  std::vector<uint8_t> kept(const std::string& name, int64_t row, int64_t copy) const;
  std::vector<uint8_t> viewed(int64_t example, uint64_t view) const;
  std::vector<uint8_t> plain(int64_t example) const;
  /// What expect() had made of a view (0: the plain images); null where it was not asked for.
  const uint8_t* made_ahead(int64_t example, uint64_t view) const;
  models::Activations batch_of(const std::vector<const uint8_t*>& samples) const;

  torch::Device device_;
  data::Preprocessing preprocessing_;
  data::ImageOptions options_;
  std::shared_ptr<const data::ImageFiles> files_;
  data::Ragged<char> names_;
  std::vector<std::pair<int64_t, int64_t>> rows_and_copies_;  // of each example: row of add()'s names, and which view
  data::Ragged<char> pixels_;  // prepared images, as kept, unless they are more than options.cache_gb
  bool cached_ = true;
  std::string hash_;
  std::optional<data::AugmentOptions> augment_;
  uint64_t seed_ = 0;
  int64_t least_side_ = 1;
  mutable std::vector<Ahead> ahead_;  // of the batch in work and of the next
};

}  // namespace graft::features
