// The recipe's [images] section: how image files are read. How they are prepared belongs to the model.
#pragma once

#include <cstdint>
#include <string>

#include "graft/data/images/augment_options.h"

namespace graft::data {

struct ImageOptions {
  int64_t pixel_limit = 178'956'970;  // Pillow's: larger images are taken for bombs
  bool fast_decode = false;
  std::string sixteen_bit = "scale";
  double cache_gb = 8;
  AugmentOptions augment;

  template <class Visitor>
  void visit(Visitor&& field) {
    field("pixel_limit", pixel_limit, "images with more pixels are refused before they are decoded");
    field("fast_decode", fast_decode,
          "decode large JPEGs at 1/2, 1/4 or 1/8 where that is enough; faster, and pixels differ a little");
    field("sixteen_bit", sixteen_bit,
          "samples of 16 bits: scale keeps their range; saturate cuts gray off at 255 as Pillow does");
    field("cache_gb", cache_gb,
          "prepared images are kept, 3 bytes a pixel, up to this size; beyond it they are "
          "decoded again in each epoch");
    field("augment", augment, "random views of training images, wherever the first block trains");
  }
};

}  // namespace graft::data
