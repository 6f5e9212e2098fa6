#include "graft/data/images/resize.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numbers>

#include "graft/core/error.h"

// Of these functions compilers make one for processors with AVX2 too, and the loader takes the one that fits.
#if defined(__x86_64__) && defined(__gnu_linux__) && !defined(__SANITIZE_ADDRESS__)
#define GRAFT_CLONES __attribute__((target_clones("avx2", "default"), optimize("O3")))
#else
#define GRAFT_CLONES
#endif

namespace graft::data {
namespace {

constexpr int kPrecision = 32 - 8 - 2;

double sinc(double x) { return x == 0 ? 1 : std::sin(x * std::numbers::pi) / (x * std::numbers::pi); }

double weight(Filter filter, double x) {
  const double a = std::abs(x);
  switch (filter) {
    case Filter::box:
      return x > -0.5 && x <= 0.5 ? 1 : 0;
    case Filter::bilinear:
      return a < 1 ? 1 - a : 0;
    case Filter::hamming:
      return a == 0 ? 1 : a >= 1 ? 0 : sinc(a) * (0.54 + 0.46 * std::cos(a * std::numbers::pi));
    case Filter::bicubic:
      if (a < 1) return ((-0.5 + 2) * a - (-0.5 + 3)) * a * a + 1;
      return a < 2 ? (((a - 5) * a + 8) * a - 4) * -0.5 : 0;
    case Filter::lanczos:
      return -3 <= x && x < 3 ? sinc(x) * sinc(x / 3) : 0;
    case Filter::nearest:
      break;
  }
  GRAFT_ASSERT(false, "nearest has no weights");
}

double support_of(Filter filter) {
  switch (filter) {
    case Filter::box:
      return 0.5;
    case Filter::bicubic:
      return 2;
    case Filter::lanczos:
      return 3;
    default:
      return 1;
  }
}

/// For each pixel of a pass: the first of its sources, how many, and their weights.
struct Weights {
  std::vector<int64_t> first, count;
  std::vector<int32_t> values;  // in fixed point; `most` for each pixel
  std::vector<double> exact;
  int64_t most = 0;
};

Weights weights_of(int64_t in, int64_t out, Filter filter) {
  const double scale = static_cast<double>(in) / static_cast<double>(out), stretch = std::max(scale, 1.0);
  const double support = support_of(filter) * stretch;
  Weights w;
  w.most = static_cast<int64_t>(std::ceil(support)) * 2 + 1;
  w.values.resize(out * w.most);
  w.exact.resize(out * w.most);
  for (int64_t i = 0; i < out; ++i) {
    const double centre = (static_cast<double>(i) + 0.5) * scale;
    const auto first = std::max<int64_t>(0, static_cast<int64_t>(centre - support + 0.5));
    const auto last = std::min(in, static_cast<int64_t>(centre + support + 0.5));
    double sum = 0;
    auto* exact = w.exact.data() + i * w.most;
    for (int64_t k = 0; k < last - first; ++k) {
      exact[k] = weight(filter, (static_cast<double>(k + first) - centre + 0.5) * (1.0 / stretch));
      sum += exact[k];
    }
    for (int64_t k = 0; k < last - first; ++k) {
      if (sum != 0) exact[k] /= sum;
      const double value = exact[k] * (1 << kPrecision);
      w.values[i * w.most + k] = static_cast<int32_t>(value < 0 ? value - 0.5 : value + 0.5);
    }
    w.first.push_back(first);
    w.count.push_back(last - first);
  }
  return w;
}

[[gnu::always_inline]] inline uint8_t clipped(int32_t sum) {
  const int32_t level = sum >> kPrecision;
  return static_cast<uint8_t>(level < 0 ? 0 : level > 255 ? 255 : level);
}

template <int kBands>
void horizontal_rows(const Image& in, const Weights& w, int64_t first_row, int64_t rows, Image& out) {
  for (int64_t y = 0; y < rows; ++y) {
    const auto* line = in.at(0, y + first_row);
    auto* to = out.at(0, y);
    for (int64_t x = 0; x < out.width; ++x) {
      int32_t sums[kBands];
      std::fill(sums, sums + kBands, 1 << (kPrecision - 1));
      const auto* from = line + w.first[x] * kBands;
      const auto* k = w.values.data() + x * w.most;
      for (int64_t i = 0; i < w.count[x]; ++i, from += kBands)
        for (int c = 0; c < kBands; ++c) sums[c] += from[c] * k[i];
      for (int c = 0; c < kBands; ++c) *to++ = clipped(sums[c]);
    }
  }
}

// The same sums four at a time, the fourth being the next pixel's first and left out: nothing but the speed differs.
using Lanes = int32_t __attribute__((vector_size(16)));
using Bytes = uint8_t __attribute__((vector_size(4)));

GRAFT_CLONES void horizontal_colours(const uint8_t* in, int64_t in_row, const Weights& w, int64_t rows, uint8_t* out,
                                     int64_t width) {
  const auto *first = w.first.data(), *count = w.count.data();
  const auto* values = w.values.data();
  const auto most = w.most;
  for (int64_t y = 0; y < rows; ++y, in += in_row)
    for (int64_t x = 0; x < width; ++x, out += 3) {
      const auto* from = in + first[x] * 3;
      const auto* k = values + x * most;
      Lanes sums = Lanes{} + (1 << (kPrecision - 1));
      for (int64_t i = 0; i < count[x]; ++i, from += 3) {
        Bytes bytes;
        std::memcpy(&bytes, from, 4);
        sums += __builtin_convertvector(bytes, Lanes) * k[i];
      }
      for (int c = 0; c < 3; ++c) out[c] = clipped(sums[c]);
    }
}

Image horizontal(const Image& in, const Weights& w, int64_t width, int64_t first_row, int64_t rows) {
  Image out(width, rows, in.bands);
  if (in.bands == 1) {
    horizontal_rows<1>(in, w, first_row, rows, out);
    return out;
  }
  // Behind the last pixel of the image there is no fourth byte, so its row is summed one by one.
  const auto fast = std::min(rows, in.height - 1 - first_row);
  horizontal_colours(in.at(0, first_row), in.width * 3, w, fast, out.samples.data(), width);
  if (fast < rows) {
    Image last(width, 1, 3);
    horizontal_rows<3>(in, w, first_row + fast, 1, last);
    std::copy(last.samples.begin(), last.samples.end(), out.at(0, fast));
  }
  return out;
}

GRAFT_CLONES void add_row(const uint8_t* from, int32_t k, int64_t count, int32_t* sums) {
  for (int64_t x = 0; x < count; ++x) sums[x] += from[x] * k;
}

GRAFT_CLONES void clip_row(const int32_t* sums, int64_t count, uint8_t* to) {
  for (int64_t x = 0; x < count; ++x) to[x] = clipped(sums[x]);
}

/// Row sums: the inner loop runs along a row, so that compilers make vectors of it.
Image vertical(const Image& in, const Weights& w, int64_t height, int64_t first_row) {
  Image out(in.width, height, in.bands);
  const auto row = in.width * in.bands;
  std::vector<int32_t> sums(row);
  for (int64_t y = 0; y < height; ++y) {
    std::fill(sums.begin(), sums.end(), 1 << (kPrecision - 1));
    for (int64_t i = 0; i < w.count[y]; ++i) {
      const auto* from = in.at(0, w.first[y] + i - first_row);
      const int32_t k = w.values[y * w.most + i];
      add_row(from, k, row, sums.data());
    }
    clip_row(sums.data(), row, out.at(0, y));
  }
  return out;
}

/// Pillow adds up the places, so this does.
std::vector<int64_t> nearest_places(int64_t in, int64_t out) {
  const double step = static_cast<double>(in) / static_cast<double>(out);
  std::vector<int64_t> places;
  double at = step * 0.5;
  for (int64_t i = 0; i < out; ++i, at += step) places.push_back(std::min(in - 1, static_cast<int64_t>(at)));
  return places;
}

}  // namespace

Image resize(const Image& image, int64_t width, int64_t height, Filter filter) {
  GRAFT_ASSERT(width > 0 && height > 0 && (image.bands == 1 || image.bands == 3), "{} x {}", width, height);
  if (width == image.width && height == image.height) return image;
  if (filter == Filter::nearest) {
    const auto xs = nearest_places(image.width, width), ys = nearest_places(image.height, height);
    Image out(width, height, image.bands);
    for (int64_t y = 0; y < height; ++y)
      for (int64_t x = 0; x < width; ++x) std::memcpy(out.at(x, y), image.at(xs[x], ys[y]), image.bands);
    return out;
  }
  const bool narrower = width != image.width, lower = height != image.height;
  if (!lower) return horizontal(image, weights_of(image.width, width, filter), width, 0, image.height);
  const auto rows = weights_of(image.height, height, filter);
  if (!narrower) return vertical(image, rows, height, 0);
  // Pillow's rule for the order of the passes; each rounds to 8 bits, so the order shows.
  if (image.height > height && image.height - height > 2 * (image.width - width))
    return horizontal(vertical(image, rows, height, 0), weights_of(image.width, width, filter), width, 0, height);
  const auto first = rows.first.front(), last = rows.first.back() + rows.count.back();
  return vertical(horizontal(image, weights_of(image.width, width, filter), width, first, last - first), rows, height,
                  first);
}

namespace {

/// One pass, along rows or along columns.
BandImage resized_side(const BandImage& image, int64_t size, bool across, Filter filter) {
  const auto in = across ? image.width : image.height, bands = image.bands;
  BandImage out{.width = across ? size : image.width, .height = across ? image.height : size, .bands = bands};
  out.samples.resize(out.width * out.height * bands);
  Weights w;
  std::vector<int64_t> places;
  if (filter == Filter::nearest) places = nearest_places(in, size);
  else w = weights_of(in, size, filter);
  for (int64_t y = 0; y < out.height; ++y)
    for (int64_t x = 0; x < out.width; ++x)
      for (int64_t c = 0; c < bands; ++c) {
        const auto place = across ? x : y;
        const auto source = [&](int64_t at) -> double {
          return image.samples[((across ? y : at) * image.width + (across ? at : x)) * bands + c];
        };
        double sum = 0;
        if (!places.empty()) sum = source(places[place]);
        else
          for (int64_t i = 0; i < w.count[place]; ++i) sum += source(w.first[place] + i) * w.exact[place * w.most + i];
        out.samples[(y * out.width + x) * bands + c] = static_cast<float>(sum);
      }
  return out;
}

}  // namespace

BandImage resize(const BandImage& image, int64_t width, int64_t height, Filter filter) {
  GRAFT_ASSERT(width > 0 && height > 0, "{} x {}", width, height);
  const auto narrower = width == image.width ? image : resized_side(image, width, true, filter);
  return height == image.height ? narrower : resized_side(narrower, height, false, filter);
}

BandImage crop(const BandImage& image, const Box& box) {
  BandImage out{.width = box.width, .height = box.height, .bands = image.bands};
  out.samples.resize(box.width * box.height * image.bands);
  const auto left = std::max<int64_t>(0, box.left), right = std::min(image.width, box.left + box.width);
  for (int64_t y = 0; y < box.height && left < right; ++y) {
    const auto from = y + box.top;
    if (from < 0 || from >= image.height) continue;
    std::copy_n(image.samples.begin() + (from * image.width + left) * image.bands, (right - left) * image.bands,
                out.samples.begin() + (y * box.width + left - box.left) * image.bands);
  }
  return out;
}

Image crop(const Image& image, const Box& box) {
  Image out(box.width, box.height, image.bands);
  const auto left = std::max<int64_t>(0, box.left), right = std::min(image.width, box.left + box.width);
  if (left >= right) return out;
  for (int64_t y = 0; y < box.height; ++y) {
    const auto from = y + box.top;
    if (from < 0 || from >= image.height) continue;
    std::memcpy(out.at(left - box.left, y), image.at(left, from), (right - left) * image.bands);
  }
  return out;
}

}  // namespace graft::data
