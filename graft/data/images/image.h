// Pixels of one image in memory.
// Shapes:  H rows of W pixels of `bands` samples each, interleaved.
#pragma once

#include <cstdint>
#include <vector>

namespace graft::data {

/// Samples of 8 bits.
struct Image {
  int64_t width = 0, height = 0, bands = 3;
  std::vector<uint8_t> samples;  // H x W x bands

  Image() = default;
  Image(int64_t width, int64_t height, int64_t bands)
      : width(width), height(height), bands(bands), samples(width * height * bands) {}
  const uint8_t* at(int64_t x, int64_t y) const { return samples.data() + (y * width + x) * bands; }
  uint8_t* at(int64_t x, int64_t y) { return samples.data() + (y * width + x) * bands; }
};

/// What a file held: 1 (gray), 2 (gray, alpha), 3 (RGB) or 4 (RGB, alpha) bands of 8 or 16 bits.
struct RawImage {
  int64_t width = 0, height = 0, bands = 0;
  bool wide = false;             // samples are 16 bits
  std::vector<uint8_t> samples;  // bytes; 16-bit samples in the machine's order
};

/// Measurements of many bands, as the file has them.
struct BandImage {
  int64_t width = 0, height = 0, bands = 0;
  std::vector<float> samples;  // H x W x bands
};

}  // namespace graft::data
