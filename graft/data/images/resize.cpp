#include "graft/data/images/resize.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numbers>

#include "graft/core/clones.h"
#include "graft/core/error.h"

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
  int64_t pixels() const { return static_cast<int64_t>(first.size()); }

  std::vector<int64_t> first, count;
  std::vector<int32_t> values;  // in fixed point; `most` for each pixel
  std::vector<double> exact;
  int64_t most = 0;
};

/// Of the pixels [begin, begin + pixels) of `out` that `in` of them become.
Weights weights_of(int64_t in, int64_t out, Filter filter, int64_t begin, int64_t pixels) {
  const double scale = static_cast<double>(in) / static_cast<double>(out), stretch = std::max(scale, 1.0);
  const double support = support_of(filter) * stretch;
  Weights w;
  w.most = static_cast<int64_t>(std::ceil(support)) * 2 + 1;
  w.values.resize(pixels * w.most);
  w.exact.resize(pixels * w.most);
  for (int64_t i = 0; i < pixels; ++i) {
    const double centre = (static_cast<double>(begin + i) + 0.5) * scale;
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

void horizontal_gray(const Image& in, const Weights& w, int64_t first_row, Image& out) {
  for (int64_t y = 0; y < out.height; ++y) {
    const auto* line = in.at(0, y + first_row);
    auto* to = out.at(0, y);
    for (int64_t x = 0; x < out.width; ++x) {
      int32_t sum = 1 << (kPrecision - 1);
      const auto* k = w.values.data() + x * w.most;
      for (int64_t i = 0; i < w.count[x]; ++i) sum += line[w.first[x] + i] * k[i];
      to[x] = clipped(sum);
    }
  }
}

using Lanes = int32_t __attribute__((vector_size(16)));

GRAFT_CLONES void widen(const uint8_t* from, int64_t count, int32_t* to) {
  for (int64_t i = 0; i < count; ++i) to[i] = from[i];
}

GRAFT_CLONES void clip(const int32_t* sums, int64_t count, uint8_t* to) {
  for (int64_t i = 0; i < count; ++i) to[i] = clipped(sums[i]);
}

/// One row of a pass across in three colours: the same sums four at a time, the fourth being the next pixel's first and
/// overwritten. Both rows have room for one more sample.
GRAFT_CLONES void across(const int32_t* in, const Weights& w, int64_t in_width, int32_t* sums) {
  const auto *first = w.first.data(), *count = w.count.data(), width = w.pixels();
  const auto* k = w.values.data();
  const auto most = w.most;
  for (int64_t x = 0; x < width; ++x, k += most, sums += 3) {
    const auto* from = in + first[x] * 3;
    // Weights behind the last are 0, and loops of one length are faster than loops of two.
    const auto taps = first[x] + most <= in_width ? most : count[x];
    Lanes sum = Lanes{} + (1 << (kPrecision - 1));
    for (int64_t i = 0; i < taps; ++i) {
      Lanes pixel;
      std::memcpy(&pixel, from + 3 * i, sizeof pixel);
      sum += pixel * k[i];
    }
    std::memcpy(sums, &sum, sizeof sum);
  }
}

Image horizontal(const Image& in, const Weights& w, int64_t first_row, int64_t rows) {
  Image out(w.pixels(), rows, in.bands);
  if (in.bands == 1) {
    horizontal_gray(in, w, first_row, out);
    return out;
  }
  std::vector<int32_t> row(in.width * 3 + 1), sums(out.width * 3 + 1);
  for (int64_t y = 0; y < rows; ++y) {
    widen(in.at(0, first_row + y), in.width * 3, row.data());
    across(row.data(), w, in.width, sums.data());
    clip(sums.data(), out.width * 3, out.at(0, y));
  }
  return out;
}

GRAFT_CLONES void add_row(const uint8_t* from, int32_t k, int64_t count, int32_t* sums) {
  for (int64_t x = 0; x < count; ++x) sums[x] += from[x] * k;
}

/// `in` begins with the row `first_row` of what the weights speak of.
Image vertical(const Image& in, const Weights& w, int64_t first_row) {
  Image out(in.width, w.pixels(), in.bands);
  std::vector<int32_t> sums(in.width * in.bands);
  for (int64_t y = 0; y < out.height; ++y) {
    std::fill(sums.begin(), sums.end(), 1 << (kPrecision - 1));
    for (int64_t i = 0; i < w.count[y]; ++i)
      add_row(in.at(0, w.first[y] + i - first_row), w.values[y * w.most + i], sums.size(), sums.data());
    clip(sums.data(), sums.size(), out.at(0, y));
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
  return resize(image, width, height, filter, {0, 0, width, height});
}

Image resize(const Image& image, int64_t width, int64_t height, Filter filter, const Box& part) {
  GRAFT_ASSERT(width > 0 && height > 0 && (image.bands == 1 || image.bands == 3), "{} x {}", width, height);
  const bool inside =
      part.left >= 0 && part.top >= 0 && part.left + part.width <= width && part.top + part.height <= height;
  if (!inside) return crop(resize(image, width, height, filter), part);
  const bool narrower = width != image.width, lower = height != image.height;
  if (!narrower && !lower) return crop(image, part);
  if (filter == Filter::nearest) {
    const auto xs = nearest_places(image.width, width), ys = nearest_places(image.height, height);
    Image out(part.width, part.height, image.bands);
    for (int64_t y = 0; y < part.height; ++y)
      for (int64_t x = 0; x < part.width; ++x)
        std::memcpy(out.at(x, y), image.at(xs[part.left + x], ys[part.top + y]), image.bands);
    return out;
  }
  const auto columns = [&] { return weights_of(image.width, width, filter, part.left, part.width); };
  if (!lower) return horizontal(image, columns(), part.top, part.height);
  const auto rows = weights_of(image.height, height, filter, part.top, part.height);
  if (!narrower) return crop(vertical(image, rows, 0), {part.left, 0, part.width, part.height});
  // Pillow's rule for the order of the passes; each rounds to 8 bits, so the order shows.
  if (image.height > height && image.height - height > 2 * (image.width - width))
    return horizontal(vertical(image, rows, 0), columns(), 0, part.height);
  const auto first = rows.first.front(), last = rows.first.back() + rows.count.back();
  return vertical(horizontal(image, columns(), first, last - first), rows, first);
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
  else w = weights_of(in, size, filter, 0, size);
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

BandImage resize(const BandImage& image, int64_t width, int64_t height, Filter filter, const Box& part) {
  return crop(resize(image, width, height, filter), part);
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
