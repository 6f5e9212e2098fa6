// Resizing with Pillow's arithmetic (src/libImaging/Resample.c of Pillow 13): antialiased, in fixed point of 22 bits,
// rounded to 8 bits between its two passes. Torch's own antialiased resize differs from it by a level here and there.
#pragma once

#include <string>

#include "graft/data/images/image.h"

namespace graft::data {

/// By Pillow's numbers, which preprocessor_config.json uses.
enum class Filter { nearest = 0, lanczos = 1, bilinear = 2, bicubic = 3, box = 4, hamming = 5 };

/// Part of an image, in pixels.
struct Box {
  int64_t left = 0, top = 0, width = 0, height = 0;
};

/// The whole image as `width` x `height` pixels.
Image resize(const Image& image, int64_t width, int64_t height, Filter filter);

/// Cut out of the whole: crop() of it, but what `part` leaves out is not computed.
Image resize(const Image& image, int64_t width, int64_t height, Filter filter, const Box& part);

/// Of many bands: the same weights in double precision, as Pillow resizes its mode F.
BandImage resize(const BandImage& image, int64_t width, int64_t height, Filter filter);
BandImage resize(const BandImage& image, int64_t width, int64_t height, Filter filter, const Box& part);

/// Cut out; what lies outside the image is black.
Image crop(const Image& image, const Box& box);
BandImage crop(const BandImage& image, const Box& box);

}  // namespace graft::data
