#include "graft/data/images/augment.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <numbers>

#include "graft/core/random.h"

namespace graft::data {
namespace {

double between(Random& random, double low, double high) { return low + (high - low) * random.uniform(); }

uint8_t level(double value) { return static_cast<uint8_t>(std::clamp(value + 0.5, 0.0, 255.0)); }

/// torchvision's RandomResizedCrop: ten tries, then the middle.
Box random_crop(Random& random, const Image& image, const AugmentOptions& o) {
  const double area = static_cast<double>(image.width * image.height);
  for (int attempt = 0; attempt < 10; ++attempt) {
    const double target = area * between(random, o.smallest_crop, 1);
    const double ratio = std::exp(between(random, -std::log(o.crop_ratio), std::log(o.crop_ratio)));
    const auto width = std::llround(std::sqrt(target * ratio)), height = std::llround(std::sqrt(target / ratio));
    if (width < 1 || height < 1 || width > image.width || height > image.height) continue;
    return {static_cast<int64_t>(random.below(image.width - width + 1)),
            static_cast<int64_t>(random.below(image.height - height + 1)), width, height};
  }
  const auto width = std::min<int64_t>(image.width, std::llround(static_cast<double>(image.height) * o.crop_ratio));
  const auto height = std::min<int64_t>(image.height, std::llround(static_cast<double>(image.width) * o.crop_ratio));
  return {(image.width - width) / 2, (image.height - height) / 2, std::max<int64_t>(1, width),
          std::max<int64_t>(1, height)};
}

void flip(Image& image, bool horizontal) {
  const Image from = image;
  for (int64_t y = 0; y < image.height; ++y)
    for (int64_t x = 0; x < image.width; ++x)
      std::memcpy(image.at(x, y), horizontal ? from.at(image.width - 1 - x, y) : from.at(x, image.height - 1 - y), 3);
}

/// out(x, y) = in(a x + b y + c, d x + e y + f) about the middle, bilinear; outside gray.
void warp(Image& image, double a, double b, double c, double d, double e, double f) {
  const Image from = image;
  const double mx = (static_cast<double>(image.width) - 1) / 2, my = (static_cast<double>(image.height) - 1) / 2;
  for (int64_t y = 0; y < image.height; ++y)
    for (int64_t x = 0; x < image.width; ++x) {
      const double u = static_cast<double>(x) - mx, v = static_cast<double>(y) - my;
      const double sx = a * u + b * v + c + mx, sy = d * u + e * v + f + my;
      const auto x0 = static_cast<int64_t>(std::floor(sx)), y0 = static_cast<int64_t>(std::floor(sy));
      const double wx = sx - static_cast<double>(x0), wy = sy - static_cast<double>(y0);
      for (int64_t k = 0; k < 3; ++k) {
        const auto sample = [&](int64_t px, int64_t py) -> double {
          const bool inside = px >= 0 && py >= 0 && px < from.width && py < from.height;
          return inside ? from.at(px, py)[k] : 128;
        };
        image.at(x, y)[k] = level((1 - wy) * ((1 - wx) * sample(x0, y0) + wx * sample(x0 + 1, y0)) +
                                  wy * ((1 - wx) * sample(x0, y0 + 1) + wx * sample(x0 + 1, y0 + 1)));
      }
    }
}

void rotate(Image& image, double degrees) {
  const double t = degrees * std::numbers::pi / 180;
  warp(image, std::cos(t), std::sin(t), 0, -std::sin(t), std::cos(t), 0);
}

double gray(const uint8_t* pixel) { return 0.299 * pixel[0] + 0.587 * pixel[1] + 0.114 * pixel[2]; }

void brighten(Image& image, double factor) {
  for (auto& sample : image.samples) sample = level(sample * factor);
}

void contrast(Image& image, double factor) {
  double mean = 0;
  for (size_t i = 0; i < image.samples.size(); i += 3) mean += gray(image.samples.data() + i);
  mean /= static_cast<double>(image.samples.size()) / 3;
  for (auto& sample : image.samples) sample = level(mean + (sample - mean) * factor);
}

void saturate(Image& image, double factor) {
  for (size_t i = 0; i < image.samples.size(); i += 3) {
    auto* pixel = image.samples.data() + i;
    const double middle = gray(pixel);
    for (int k = 0; k < 3; ++k) pixel[k] = level(middle + (pixel[k] - middle) * factor);
  }
}

void autocontrast(Image& image) {
  for (size_t k = 0; k < 3; ++k) {
    uint8_t low = 255, high = 0;
    for (size_t i = k; i < image.samples.size(); i += 3)
      low = std::min(low, image.samples[i]), high = std::max(high, image.samples[i]);
    if (high <= low) continue;
    for (size_t i = k; i < image.samples.size(); i += 3)
      image.samples[i] = level((image.samples[i] - low) * 255.0 / (high - low));
  }
}

/// Pillow's ImageEnhance.Sharpness: away from (or towards) a smoothed image, whose border is the image's own.
void sharpen(Image& image, double factor) {
  const Image from = image;
  for (int64_t y = 1; y + 1 < image.height; ++y)
    for (int64_t x = 1; x + 1 < image.width; ++x)
      for (int64_t k = 0; k < 3; ++k) {
        int sum = 4 * from.at(x, y)[k];
        for (int64_t j = -1; j <= 1; ++j)
          for (int64_t i = -1; i <= 1; ++i) sum += from.at(x + i, y + j)[k];
        const int smooth = level(sum / 13.0);
        const double blended = smooth + factor * (from.at(x, y)[k] - smooth);
        image.at(x, y)[k] = static_cast<uint8_t>(std::clamp(blended, 0.0, 255.0));  // cut off, as Pillow does
      }
}

/// Pillow's ImageOps.equalize: every level of a channel becomes as frequent as the others.
void equalize(Image& image) {
  for (size_t k = 0; k < 3; ++k) {
    std::array<int64_t, 256> count{};
    for (size_t i = k; i < image.samples.size(); i += 3) ++count[image.samples[i]];
    const auto last = std::find_if(count.rbegin(), count.rend(), [](int64_t n) { return n > 0; });
    const int64_t step = (image.width * image.height - *last) / 255;
    if (step == 0) continue;
    std::array<uint8_t, 256> mapped{};
    int64_t before = step / 2;
    for (size_t v = 0; v < 256; ++v) {
      mapped[v] = static_cast<uint8_t>(std::min<int64_t>(255, before / step));
      before += count[v];
    }
    for (size_t i = k; i < image.samples.size(); i += 3) image.samples[i] = mapped[image.samples[i]];
  }
}

/// One of RandAugment's operations; strength from 0 to 1, magnitudes as torchvision's.
void random_operation(Image& image, Random& random, double strength) {
  const auto operation = random.below(14);
  const double sign = random.below(2) ? 1 : -1;
  switch (operation) {
    case 0:
      return;
    case 1:
      return warp(image, 1, sign * 0.3 * strength, 0, 0, 1, 0);
    case 2:
      return warp(image, 1, 0, 0, sign * 0.3 * strength, 1, 0);
    case 3:
      return warp(image, 1, 0, sign * 0.45 * strength * static_cast<double>(image.width), 0, 1, 0);
    case 4:
      return warp(image, 1, 0, 0, 0, 1, sign * 0.45 * strength * static_cast<double>(image.height));
    case 5:
      return rotate(image, sign * 30 * strength);
    case 6:
      return brighten(image, 1 + sign * 0.9 * strength);
    case 7:
      return contrast(image, 1 + sign * 0.9 * strength);
    case 8:
      return saturate(image, 1 + sign * 0.9 * strength);
    case 9: {  // posterize
      const auto mask = static_cast<uint8_t>(0xFF << std::llround(4 * strength));
      for (auto& sample : image.samples) sample &= mask;
      return;
    }
    case 10:  // solarize
      for (auto& sample : image.samples)
        if (sample >= 255 * (1 - strength)) sample = static_cast<uint8_t>(255 - sample);
      return;
    case 11:
      return autocontrast(image);
    case 12:
      return sharpen(image, 1 + sign * 0.9 * strength);
    default:
      return equalize(image);
  }
}

void erase(Image& image, Random& random) {
  const double area = static_cast<double>(image.width * image.height);
  for (int attempt = 0; attempt < 10; ++attempt) {
    const double target = area * between(random, 0.02, 1.0 / 3), ratio = std::exp(between(random, -1.2, 1.2));
    const auto width = std::llround(std::sqrt(target * ratio)), height = std::llround(std::sqrt(target / ratio));
    if (width < 1 || height < 1 || width >= image.width || height >= image.height) continue;
    const auto left = static_cast<int64_t>(random.below(image.width - width)),
               top = static_cast<int64_t>(random.below(image.height - height));
    for (int64_t y = top; y < top + height; ++y)
      for (auto* s = image.at(left, y); s < image.at(left, y) + 3 * width; ++s)
        *s = static_cast<uint8_t>(random.below(256));
    return;
  }
}

double factor(Random& random, double reach) { return between(random, std::max(0.0, 1 - reach), 1 + reach); }

}  // namespace

void turn_hue(Image& image, double turns) {
  for (size_t i = 0; i < image.samples.size(); i += 3) {
    auto* pixel = image.samples.data() + i;
    const double r = pixel[0], g = pixel[1], b = pixel[2];
    const double most = std::max({r, g, b}), range = most - std::min({r, g, b});
    if (range == 0) continue;
    // Sixths of the circle from red over green to blue.
    double h = most == r ? (g - b) / range : most == g ? 2 + (b - r) / range : 4 + (r - g) / range;
    h = std::fmod(h / 6 + turns + 2, 1.0) * 6;
    const auto channel = [&](double offset) {
      const double place = std::fmod(h + offset, 6.0);
      return level(most - range * std::clamp(std::min(place, 4 - place), 0.0, 1.0));
    };
    pixel[0] = channel(5), pixel[1] = channel(3), pixel[2] = channel(1);
  }
}

Image augmented(const Image& image, const Preprocessing& p, const AugmentOptions& o, uint64_t seed) {
  Random random(seed);
  const auto box = o.smallest_crop < 1 ? random_crop(random, image, o) : Box{0, 0, image.width, image.height};
  auto view = resize(crop(image, box), p.width(), p.height(), p.filter);
  if (random.uniform() < o.flip_horizontal) flip(view, true);
  if (random.uniform() < o.flip_vertical) flip(view, false);
  for (int64_t i = 0; i < o.randaugment; ++i) random_operation(view, random, o.randaugment_strength / 30);
  if (o.rotation > 0) rotate(view, between(random, -o.rotation, o.rotation));
  if (o.brightness > 0) brighten(view, factor(random, o.brightness));
  if (o.contrast > 0) contrast(view, factor(random, o.contrast));
  if (o.saturation > 0) saturate(view, factor(random, o.saturation));
  if (o.hue > 0) turn_hue(view, between(random, -std::min(o.hue, 0.5), std::min(o.hue, 0.5)));
  if (random.uniform() < o.erasing) erase(view, random);
  return view;
}

}  // namespace graft::data
