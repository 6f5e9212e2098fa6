// What a model's images went through before it saw them: resize, crop, normalise. It travels with the weights.
// Read from preprocessor_config.json (transformers), pretrained_cfg in config.json (timm), transform.json (torchvision's
// presets: resize_size, crop_size, mean, std, interpolation; BioViL's: resize, center_crop_size). Where mean and std have
// other than three numbers, images have as many bands; transform.json's `scale` then multiplies samples before (default 1).
#pragma once

#include <array>
#include <filesystem>
#include <map>
#include <optional>
#include <vector>

#include "graft/core/json.h"
#include "graft/data/images/decode.h"
#include "graft/data/images/resize.h"

namespace graft::data {

namespace fs = std::filesystem;

struct Preprocessing {
  std::string origin;  // the file that it was read from, or why it is what it is
  bool apply_orientation = false;
  bool min_max_gray = false;                    // BioViL: the image's own range becomes 0 to 255, then gray
  int64_t short_edge = 0;                       // resized to this, the proportions kept; 0: see width and height
  int64_t resize_width = 0, resize_height = 0;  // stretched to this; 0: not resized
  Filter filter = Filter::bilinear;
  int64_t crop_width = 0, crop_height = 0;  // 0: not cropped
  bool round_half_even = false;             // where an odd rest puts the crop: torchvision rounds, transformers floors
  std::array<std::array<float, 256>, 3> value{};  // per channel: what each of the 256 levels becomes
  /// Where mean and std are of other than three channels: (sample * scale - mean) / std of each.
  struct Bands {
    double scale = 1;
    std::vector<double> mean, std;
  };
  std::optional<Bands> bands;

  /// Size of what prepared() gives, the same for all images.
  int64_t width() const { return crop_width ? crop_width : resize_width; }
  int64_t channels() const { return bands ? static_cast<int64_t>(bands->mean.size()) : 3; }
  int64_t height() const { return crop_height ? crop_height : resize_height; }
  /// The filter's name, sizes and crop, for the journal and for people.
  Json description() const;
};

/// Throws Kind::model for settings that graft does not compute, and for a folder without any.
Preprocessing read_preprocessing(const fs::path& model_folder);

/// The files that carry it, to be written beside saved weights: name and content.
std::map<std::string, std::string> preprocessing_files(const fs::path& model_folder);

/// What is decoded: a quarter, for example, when so few pixels are wanted and `fast` is set.
DecodeOptions decode_options(const Preprocessing& p, int64_t pixel_limit, bool fast);

/// Three bands of 8 bits, before resizing (with BioViL's range and gray).
Image three_bands(const Preprocessing& p, RawImage raw, SixteenBit sixteen_bit);

/// Resized and cropped, 8 bits, width() x height(). Throws Kind::data for proportions that the resize would blow up.
Image prepared(const Preprocessing& p, const Image& image, const std::string& where);

/// A file of many bands as (channels(), H, W), decoded, resized, cropped and normalised.
/// Throws Kind::data naming `where`, also for another number of bands, and for a side below `least_side`.
std::vector<float> band_values(const Preprocessing& p, std::string_view bytes, const std::string& where,
                               int64_t pixel_limit, int64_t least_side = 1);

/// Throws Kind::data naming `where` for an image with a side below that of a patch.
void check_side(int64_t width, int64_t height, int64_t least_side, const std::string& where);

/// (3, H, W) into `out`: value[c][level].
void normalise(const Preprocessing& p, const uint8_t* samples, float* out);

}  // namespace graft::data
