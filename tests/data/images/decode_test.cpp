// Every kind of file against what Pillow decodes it to (tests/images/make_decode.py), and files that are none.
#include <gtest/gtest.h>

#include "graft/core/error.h"
#include "graft/data/images/decode.h"
#include "graft/io/safetensors.h"
#include "tests/fixtures.h"

namespace graft::data {
namespace {

/// Largest and mean difference of two images in levels.
std::pair<int, double> difference(const Image& found, const io::TensorView& wanted) {
  EXPECT_EQ(found.height, wanted.shape[0]);
  EXPECT_EQ(found.width, wanted.shape[1]);
  EXPECT_EQ(wanted.shape.size(), 3u);
  int most = 0;
  double sum = 0;
  for (size_t i = 0; i < found.samples.size() && !testing::Test::HasFailure(); ++i) {
    const int d = std::abs(found.samples[i] - static_cast<unsigned char>(wanted.data[i]));
    most = std::max(most, d);
    sum += d;
  }
  return {most, sum / static_cast<double>(found.samples.size())};
}

TEST(DecodeImage, EveryKindOfFileGivesPillowsPixels) {
  const auto folder = tests::fixture("images/decode");
  const auto wanted = io::read_safetensors(folder / "decoded.safetensors");
  int files = 0;
  for (const auto& [name, pixels] : wanted.tensors) {
    const auto raw = decode_image(tests::read_text(folder / name), name);
    const auto [most, mean] = difference(to_rgb(raw, SixteenBit::saturate), pixels);
    // Lossless formats, and JPEG by the same library family, are equal; libwebp's lossy decoder differs by version.
    EXPECT_LE(most, name == "webp-lossy.webp" ? 2 : 0) << name << ", mean " << mean;
    ++files;
  }
  EXPECT_GE(files, 25);
}

TEST(DecodeImage, SixteenBitsKeepTheirRangeUnlessPillowsWayIsAskedFor) {
  RawImage raw{.width = 2, .height = 1, .bands = 1, .wide = true};
  const uint16_t samples[] = {1000, 65535};
  raw.samples.assign(reinterpret_cast<const uint8_t*>(samples), reinterpret_cast<const uint8_t*>(samples + 2));
  EXPECT_EQ(to_rgb(raw).samples, (std::vector<uint8_t>{3, 3, 3, 255, 255, 255}));
  EXPECT_EQ(to_rgb(raw, SixteenBit::saturate).samples, (std::vector<uint8_t>{255, 255, 255, 255, 255, 255}));
}

TEST(DecodeImage, BadFilesAreNamed) {
  const auto folder = tests::fixture("images/bad");
  for (const auto& [name, words] :
       {std::pair{"truncated.jpg", "JPEG is damaged or cut off"},
        {"truncated.png", "PNG is damaged or cut off"},
        {"truncated.tif", "TIFF is damaged or cut off"},
        {"bomb.png", "100000 x 100000 pixels"},
        {"text.jpg", "is no image"},
        {"bands.tif", "has 7 bands, expected gray or RGB"},
        {"float.tif", "has samples of the kind float; graft reads whole numbers of 8 or 16"},
        {"empty.png", "the file is empty"}}) {
    const auto message = tests::message_of([&] { decode_image(tests::read_text(folder / name), name); });
    EXPECT_NE(message.find(words), std::string::npos) << name << ": " << message;
    EXPECT_TRUE(message.starts_with(name)) << message;
  }
}

TEST(DecodeImage, OtherFormatsThatAreCutOffAreNamed) {
  for (const auto& [name, format] : {std::pair{"webp-lossless.webp", "WebP"},
                                     {"webp-lossy.webp", "WebP"},
                                     {"gif-frames.gif", "GIF"},
                                     {"bmp.bmp", "BMP"},
                                     {"bmp-palette.bmp", "BMP"},
                                     {"tiff-gray-deflate.tif", "TIFF"}}) {
    const auto whole = tests::read_text(tests::fixture("images/decode") / name);
    for (const double part : {0.1, 0.4}) {
      const auto message = tests::message_of(
          [&] { decode_image(whole.substr(0, static_cast<size_t>(part * static_cast<double>(whole.size()))), "cut"); });
      EXPECT_EQ(message, fmt::format("cut: the {} is damaged or cut off; replace or remove it.", format))
          << name << part;
    }
  }
}

TEST(DecodeImage, EveryCutOfAJpegIsAnErrorOrTheWholeImage) {
  const auto whole = tests::read_text(tests::fixture("images/decode/jpeg-420.jpg"));
  for (size_t length = 1; length + 2 < whole.size(); length += 7)
    EXPECT_THROW(decode_image(whole.substr(0, length), "cut.jpg"), Error) << length;
}

TEST(DecodeImage, FastDecodeShrinksWhileEnoughPixelsRemain) {
  const auto bytes = tests::read_text(tests::fixture("images/decode/jpeg-444.jpg"));  // 45 x 37
  EXPECT_EQ(decode_image(bytes, "a", {.enough = 18}).width, 22);
  EXPECT_EQ(decode_image(bytes, "a", {.enough = 19}).width, 45);
  EXPECT_EQ(decode_image(bytes, "a", {.enough = 5}).height, 9);
}

}  // namespace
}  // namespace graft::data
