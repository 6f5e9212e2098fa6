// The recipe's [images.augment] section.
#pragma once

#include <cstdint>

namespace graft::data {

/// `enabled` alone gives random crops and horizontal flips.
struct AugmentOptions {
  bool enabled = false;
  double smallest_crop = 0.35;    // part of the area; torchvision's 0.08 suits training from scratch
  double crop_ratio = 4.0 / 3.0;  // widest proportion, and its inverse
  double flip_horizontal = 0.5;   // probability
  double flip_vertical = 0;
  double rotation = 0;                                  // degrees, both ways
  double brightness = 0, contrast = 0, saturation = 0;  // factor from 1 - x to 1 + x
  double hue = 0;                                       // turns of the colour circle, both ways, up to 0.5
  int64_t randaugment = 0;                              // operations drawn for each view; 0: none (Cubuk et al. 2020)
  double randaugment_strength = 9;                      // of 30
  double erasing = 0;                                   // probability (Zhong et al. 2020)
  int64_t views = 1;                                    // of each training image, also behind frozen blocks
  double mixup = 0, cutmix = 0;  // alpha of the beta distribution (Zhang et al. 2018, Yun et al. 2019)

  template <class Visitor>
  void visit(Visitor&& field) {
    field("enabled", enabled, "random views of the training images wherever the first block trains");
    field("smallest_crop", smallest_crop, "smallest part of the area that a random crop keeps; 1 for no cropping");
    field("crop_ratio", crop_ratio, "widest proportion of a random crop, and its inverse the narrowest");
    field("flip_horizontal", flip_horizontal, "probability");
    field("flip_vertical", flip_vertical, "probability; for microscopy and aerial images 0.5");
    field("rotation", rotation, "up to so many degrees, both ways");
    field("brightness", brightness, "factor from 1 - x to 1 + x; likewise the next two");
    field("contrast", contrast, "");
    field("saturation", saturation, "");
    field("hue", hue, "up to so many turns of the colour circle, both ways; at most 0.5");
    field("randaugment", randaugment, "operations drawn for each view (Cubuk et al. 2020); 0 for none");
    field("randaugment_strength", randaugment_strength, "0 to 30");
    field("erasing", erasing, "probability that a rectangle is replaced by noise (Zhong et al. 2020)");
    field("views", views,
          "views of each training image, also where frozen blocks are computed once; an epoch is as many times longer");
    field("mixup", mixup,
          "alpha of blending pairs of images and their labels, up to 1; 0 for never (Zhang et al. 2018)");
    field("cutmix", cutmix,
          "alpha of pasting a part of one image into another, up to 1; 0 for never (Yun et al. 2019)");
  }
};

}  // namespace graft::data
