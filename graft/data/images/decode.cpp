#include "graft/data/images/decode.h"

#include <vips/vips.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <mutex>

#include "graft/core/error.h"

namespace graft::data {
namespace {

struct Release {
  void operator()(void* object) const { g_object_unref(object); }
};
using Vips = std::unique_ptr<VipsImage, Release>;
using Region = std::unique_ptr<VipsRegion, Release>;

enum class Format { jpeg, png, webp, tiff, bmp, gif, none };

Format format_of(std::string_view bytes) {
  const auto starts = [&](std::string_view magic) { return bytes.starts_with(magic); };
  if (starts("\xff\xd8\xff")) return Format::jpeg;
  if (starts("\x89PNG\r\n\x1a\n")) return Format::png;
  if (starts("RIFF") && bytes.substr(std::min<size_t>(8, bytes.size()), 4) == "WEBP") return Format::webp;
  if (starts(std::string_view("II*\0", 4)) || starts(std::string_view("MM\0*", 4)) ||
      starts(std::string_view("II+\0", 4)) || starts(std::string_view("MM\0+", 4)))
    return Format::tiff;
  if (starts("GIF87a") || starts("GIF89a")) return Format::gif;
  if (starts("BM")) return Format::bmp;
  return Format::none;
}

const char* name_of(Format format) {
  constexpr const char* kNames[] = {"JPEG", "PNG", "WebP", "TIFF", "BMP", "GIF", "image"};
  return kNames[static_cast<int>(format)];
}

/// Opened, not yet decoded; null when the header cannot be read. `shrink` is JPEG's.
Vips open_image(std::string_view bytes, Format format, int shrink) {
  VipsImage* image = nullptr;
  auto* data = const_cast<char*>(bytes.data());
  const auto size = bytes.size();
  int failed = -1;
  switch (format) {
    case Format::jpeg:
      failed = vips_jpegload_buffer(data, size, &image, "shrink", shrink, "fail_on", VIPS_FAIL_ON_ERROR, "access",
                                    VIPS_ACCESS_SEQUENTIAL, nullptr);
      break;
    case Format::png:
      failed = vips_pngload_buffer(data, size, &image, "fail_on", VIPS_FAIL_ON_ERROR, "access", VIPS_ACCESS_SEQUENTIAL,
                                   nullptr);
      break;
    case Format::webp:
      failed = vips_webpload_buffer(data, size, &image, "fail_on", VIPS_FAIL_ON_ERROR, "access", VIPS_ACCESS_SEQUENTIAL,
                                    nullptr);
      break;
    case Format::tiff:
      failed = vips_tiffload_buffer(data, size, &image, "fail_on", VIPS_FAIL_ON_ERROR, "access", VIPS_ACCESS_SEQUENTIAL,
                                    nullptr);
      break;
    case Format::bmp:  // the bytes begin with BM, so ImageMagick takes its BMP reader and no other
      failed = vips_magickload_buffer(data, size, &image, "fail_on", VIPS_FAIL_ON_ERROR, nullptr);
      break;
    case Format::gif:
      failed = vips_gifload_buffer(data, size, &image, "fail_on", VIPS_FAIL_ON_ERROR, "access", VIPS_ACCESS_SEQUENTIAL,
                                   nullptr);
      break;
    case Format::none:
      break;
  }
  vips_error_clear();
  return Vips(failed ? nullptr : image);
}

/// All samples, strip by strip on this thread: vips_image_write would hand every image to a pool of threads and wait for it.
bool read_samples(VipsImage* image, void* samples) {
  constexpr int kStrip = 16;  // rows; a JPEG's blocks are 8 or 16 high
  const Region region(vips_region_new(image));
  const auto line = VIPS_IMAGE_SIZEOF_LINE(image);
  const int height = vips_image_get_height(image);
  auto* to = static_cast<uint8_t*>(samples);
  for (int top = 0; top < height; top += kStrip) {
    const VipsRect strip{0, top, vips_image_get_width(image), std::min(kStrip, height - top)};
    if (!region || vips_region_prepare(region.get(), &strip) != 0) return false;
    for (int y = top; y < top + strip.height; ++y, to += line)
      std::memcpy(to, VIPS_REGION_ADDR(region.get(), 0, y), line);
  }
  return true;
}

int64_t orientation_of(const Vips& image) {
  int orientation = 1;
  if (vips_image_get_typeof(image.get(), VIPS_META_ORIENTATION))
    vips_image_get_int(image.get(), VIPS_META_ORIENTATION, &orientation);
  return orientation >= 1 && orientation <= 8 ? orientation : 1;
}

/// The pixel of the upright image at (x, y) is the file's pixel at what this gives.
RawImage upright(RawImage in, int64_t orientation) {
  if (orientation == 1) return in;
  RawImage out = in;
  if (orientation >= 5) std::swap(out.width, out.height);
  const auto pixel = in.bands * (in.wide ? 2 : 1);
  for (int64_t y = 0; y < out.height; ++y)
    for (int64_t x = 0; x < out.width; ++x) {
      auto sx = orientation >= 5 ? y : x, sy = orientation >= 5 ? x : y;
      if (orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8) sx = in.width - 1 - sx;
      if (orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7) sy = in.height - 1 - sy;
      std::memcpy(out.samples.data() + (y * out.width + x) * pixel, in.samples.data() + (sy * in.width + sx) * pixel,
                  pixel);
    }
  return out;
}

/// Pillow's cmyk2rgb: 255 - k - c (1 - k), in integers.
RawImage cmyk_to_rgb(const RawImage& in) {
  RawImage out{.width = in.width, .height = in.height, .bands = 3};
  out.samples.resize(in.width * in.height * 3);
  for (int64_t i = 0; i < in.width * in.height; ++i) {
    const int paper = 255 - in.samples[4 * i + 3];
    for (int64_t c = 0; c < 3; ++c) {
      const int product = in.samples[4 * i + c] * paper + 128;
      out.samples[3 * i + c] = static_cast<uint8_t>(std::clamp(paper - (((product >> 8) + product) >> 8), 0, 255));
    }
  }
  return out;
}

int shrink_for(const Vips& image, int64_t enough) {
  int shrink = 1;
  while (enough > 0 && shrink < 8 &&
         std::min(vips_image_get_width(image.get()), vips_image_get_height(image.get())) / (2 * shrink) >= enough)
    shrink *= 2;
  return shrink;
}

}  // namespace

void start_vips() {
  static std::once_flag once;
  std::call_once(once, [] {
    GRAFT_ASSERT(vips_init("graft") == 0, "libvips does not start: {}", vips_error_buffer());
    // What is wrong with a file is told by our errors, once; not by lines on standard error.
    g_log_set_handler(
        "VIPS", G_LOG_LEVEL_WARNING, [](const char*, GLogLevelFlags, const char*, void*) {}, nullptr);
    vips_concurrency_set(1);  // threads work on images, not on parts of one
    vips_cache_set_max(0);
  });
}

namespace {

[[noreturn]] void fail_damaged(Format format, const std::string& where) {
  vips_error_clear();
  fail(Kind::data, "{}: the {} is damaged or cut off; replace or remove it.", where, name_of(format));
}

/// Opened and within the limit, not yet decoded.
std::pair<Vips, Format> opened(std::string_view bytes, const std::string& where, int64_t pixel_limit) {
  start_vips();
  GRAFT_CHECK(data, !bytes.empty(), "{}: the file is empty; replace or remove it.", where);
  const auto format = format_of(bytes);
  GRAFT_CHECK(data, format != Format::none,
              "{}: is no image that graft reads (JPEG, PNG, WebP, TIFF, BMP, GIF); replace or remove it.", where);
  auto image = open_image(bytes, format, 1);
  if (!image) fail_damaged(format, where);
  const int64_t width = vips_image_get_width(image.get()), height = vips_image_get_height(image.get());
  GRAFT_CHECK(data, width * height <= pixel_limit,
              "{}: has {} x {} pixels, more than the limit of {} ({} in the recipe raises it).", where, width, height,
              pixel_limit, "images.pixel_limit");
  return {std::move(image), format};
}

}  // namespace

BandImage decode_bands(std::string_view bytes, const std::string& where, int64_t pixel_limit) {
  const auto [image, format] = opened(bytes, where, pixel_limit);
  GRAFT_CHECK(data, !vips_band_format_iscomplex(vips_image_get_format(image.get())),
              "{}: has complex samples; graft reads whole and float ones. Convert it.", where);
  VipsImage* cast = nullptr;
  if (vips_cast_float(image.get(), &cast, nullptr) != 0) fail_damaged(format, where);
  const Vips numbers(cast);
  BandImage result{
      .width = vips_image_get_width(cast), .height = vips_image_get_height(cast), .bands = vips_image_get_bands(cast)};
  result.samples.resize(result.width * result.height * result.bands);
  if (!read_samples(cast, result.samples.data())) fail_damaged(format, where);
  vips_error_clear();
  GRAFT_CHECK(data, std::all_of(result.samples.begin(), result.samples.end(), [](float v) { return std::isfinite(v); }),
              "{}: holds samples that are NaN or infinite; give missing ones a number, or remove it.", where);
  return result;
}

RawImage decode_image(std::string_view bytes, const std::string& where, const DecodeOptions& options) {
  auto [image, format] = opened(bytes, where, options.pixel_limit);
  const auto damaged = [&, format = format] { fail_damaged(format, where); };
  RawImage raw{.width = vips_image_get_width(image.get()),
               .height = vips_image_get_height(image.get()),
               .bands = vips_image_get_bands(image.get())};
  if (const int shrink = format == Format::jpeg ? shrink_for(image, options.enough) : 1; shrink > 1) {
    image = open_image(bytes, format, shrink);
    if (!image) damaged();
    raw.width = vips_image_get_width(image.get());
    raw.height = vips_image_get_height(image.get());
  }
  const auto sample = vips_image_get_format(image.get());
  const auto meaning = vips_image_get_interpretation(image.get());
  GRAFT_CHECK(data, sample == VIPS_FORMAT_UCHAR || sample == VIPS_FORMAT_USHORT,
              "{}: has samples of the kind {}; graft reads whole numbers of 8 or 16 bits. Convert it.", where,
              vips_enum_nick(VIPS_TYPE_BAND_FORMAT, sample));
  const bool cmyk = meaning == VIPS_INTERPRETATION_CMYK;
  GRAFT_CHECK(data, raw.bands <= 4 && (!cmyk || (raw.bands == 4 && sample == VIPS_FORMAT_UCHAR)),
              "{}: has {} bands, expected gray or RGB, with or without alpha. Choose the bands that the model knows.",
              where, raw.bands);
  raw.wide = sample == VIPS_FORMAT_USHORT;
  raw.samples.resize(VIPS_IMAGE_SIZEOF_IMAGE(image.get()));
  if (!read_samples(image.get(), raw.samples.data())) damaged();
  vips_error_clear();
  if (cmyk) raw = cmyk_to_rgb(raw);
  return options.apply_orientation ? upright(std::move(raw), orientation_of(image)) : raw;
}

Image to_rgb(RawImage raw, SixteenBit sixteen_bit) {
  const bool gray = raw.bands < 3;
  const auto value = [&](int64_t i) -> uint8_t {
    if (!raw.wide) return raw.samples[i];
    uint16_t sample = 0;
    std::memcpy(&sample, raw.samples.data() + 2 * i, 2);
    // Pillow has a mode for gray of 16 bits and cuts it off; colours of 16 bits it reads as their high bytes.
    if (gray && sixteen_bit == SixteenBit::saturate) return static_cast<uint8_t>(std::min<int>(sample, 255));
    return static_cast<uint8_t>(sample >> 8);
  };
  if (!raw.wide && raw.bands == 3) {
    Image image;
    image.width = raw.width, image.height = raw.height;
    image.samples = std::move(raw.samples);
    return image;
  }
  Image image(raw.width, raw.height, 3);
  for (int64_t i = 0; i < raw.width * raw.height; ++i)
    for (int64_t c = 0; c < 3; ++c) image.samples[3 * i + c] = value(raw.bands * i + (gray ? 0 : c));
  return image;
}

}  // namespace graft::data
