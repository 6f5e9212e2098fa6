#include "graft/data/images/contact_sheet.h"

#include <vips/vips.h>

#include <algorithm>
#include <cstring>
#include <memory>

#include "graft/data/images/decode.h"
#include "graft/data/images/encode.h"
#include "graft/data/images/resize.h"
#include "graft/io/file.h"

namespace graft::data {
namespace {

constexpr int64_t kTile = 144, kCaption = 44, kGap = 8, kColumns = 6;

void place(Image& page, const Image& image, int64_t left, int64_t top) {
  for (int64_t y = 0; y < std::min(image.height, page.height - top); ++y)
    std::memcpy(page.at(left, top + y), image.at(0, y), 3 * std::min(image.width, page.width - left));
}

Image fitted(const Image& image) {
  const double scale = static_cast<double>(kTile) / static_cast<double>(std::max(image.width, image.height));
  const auto side = [&](int64_t pixels) { return std::max<int64_t>(1, static_cast<int64_t>(pixels * scale + 0.5)); };
  return resize(image, side(image.width), side(image.height), Filter::bicubic);
}

/// Black on white; empty where the machine has no font.
Image written(const std::string& caption) {
  VipsImage* text = nullptr;
  std::string escaped;
  for (const char c : caption)
    escaped += c == '&' ? "&amp;" : c == '<' ? "&lt;" : c == '>' ? "&gt;" : std::string(1, c);
  if (vips_text(&text, escaped.c_str(), "font", "sans 9", "dpi", 96, nullptr) != 0) {
    vips_error_clear();
    return Image(0, 0, 3);
  }
  const std::unique_ptr<void, void (*)(void*)> guard(text, g_object_unref);
  size_t size = 0;
  const std::unique_ptr<void, void (*)(void*)> pixels(vips_image_write_to_memory(text, &size), g_free);
  Image image(vips_image_get_width(text), vips_image_get_height(text), 3);
  for (size_t i = 0; pixels && i < size; ++i)
    std::memset(image.samples.data() + 3 * i, 255 - static_cast<const uint8_t*>(pixels.get())[i], 3);
  return image;
}

}  // namespace

void write_contact_sheet(const std::filesystem::path& file, const std::vector<Tile>& tiles) {
  start_vips();
  const auto rows = (static_cast<int64_t>(tiles.size()) + kColumns - 1) / kColumns;
  Image page(kColumns * (kTile + kGap) + kGap, std::max<int64_t>(1, rows) * (kTile + kCaption + kGap) + kGap, 3);
  std::fill(page.samples.begin(), page.samples.end(), 255);
  for (size_t i = 0; i < tiles.size(); ++i) {
    const auto left = kGap + static_cast<int64_t>(i) % kColumns * (kTile + kGap),
               top = kGap + static_cast<int64_t>(i) / kColumns * (kTile + kCaption + kGap);
    place(page, fitted(tiles[i].image), left, top);
    auto text = written(tiles[i].caption);
    place(page, crop(text, {0, 0, std::min(text.width, kTile), std::min(text.height, kCaption)}), left,
          top + kTile + 2);
  }
  io::write_file(file, encode_png(page));
}

}  // namespace graft::data
