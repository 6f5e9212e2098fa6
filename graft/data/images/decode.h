// Encoded images to pixels, by libvips: JPEG, PNG, WebP, TIFF, BMP, GIF (its first frame).
// The format is told by the first bytes, never by the file's name; nothing else is opened.
#pragma once

#include <string>
#include <string_view>

#include "graft/data/images/image.h"

namespace graft::data {

/// What becomes of samples of 16 bits where 8 are wanted.
enum class SixteenBit {
  scale,     // the high byte: the range is kept
  saturate,  // gray: everything above 255 becomes 255, as Pillow's convert("RGB") does; colours are scaled
};

struct DecodeOptions {
  bool apply_orientation = true;      // EXIF
  int64_t pixel_limit = 178'956'970;  // more are refused before anything is decoded (Pillow's limit)
  int64_t enough = 0;  // JPEG may be decoded at 1/2, 1/4, 1/8 while its short side keeps so many pixels; 0: full size
};

/// Full decode gives the samples that Pillow gives. `where` begins every message.
/// Throws Kind::data: empty, no image, damaged or cut off, over the pixel limit, more than 4 bands, other sample types.
RawImage decode_image(std::string_view bytes, const std::string& where, const DecodeOptions& options = {});

/// Every band of a file as numbers, 8 to 32 bits, whole or float: for models of other than three channels.
/// Throws Kind::data as decode_image(), and for samples that are NaN or infinite.
BandImage decode_bands(std::string_view bytes, const std::string& where, int64_t pixel_limit);

/// libvips, ready for use by any thread; whatever calls it directly says so first.
void start_vips();

/// Three bands of 8 bits as Pillow's convert("RGB"): gray is repeated, alpha is dropped.
Image to_rgb(RawImage raw, SixteenBit sixteen_bit = SixteenBit::scale);

}  // namespace graft::data
