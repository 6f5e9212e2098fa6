// Pixels equal the reference preprocessors' (tests/parity/preprocess): transformers' PIL backend, timm, hi-ml.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "graft/core/error.h"
#include "graft/core/random.h"
#include "graft/data/images/preprocessing.h"
#include "graft/io/safetensors.h"
#include "tests/fixtures.h"

namespace graft::data {
namespace {

class PreprocessingParity : public testing::TestWithParam<std::string> {};

TEST_P(PreprocessingParity, EveryImage) {
  const auto folder = tests::fixture("parity/preprocess/" + GetParam());
  const auto p = read_preprocessing(folder);
  const auto golden = io::read_safetensors(folder / "pixel_values.safetensors");
  int images = 0;
  for (const auto& [name, wanted] : golden.tensors) {
    const auto bytes = tests::read_text(tests::fixture("parity/preprocess/images") / name);
    const auto raw = decode_image(bytes, name, decode_options(p, 1'000'000, false));
    const auto image = prepared(p, three_bands(p, raw, SixteenBit::saturate), name);
    std::vector<float> found(3 * p.width() * p.height()), reference(found.size());
    normalise(p, image.samples.data(), found.data());
    ASSERT_EQ(io::element_count(wanted.shape), static_cast<int64_t>(found.size())) << name;
    std::memcpy(reference.data(), wanted.data, 4 * found.size());
    // The same 8-bit levels; single precision of (level / 255 - mean) / std rounds in another order.
    double most = 0;
    for (size_t i = 0; i < found.size(); ++i) most = std::max<double>(most, std::abs(found[i] - reference[i]));
    EXPECT_LE(most, 1e-6) << name;
    ++images;
  }
  EXPECT_GE(images, 10);
}

INSTANTIATE_TEST_SUITE_P(References, PreprocessingParity,
                         testing::Values("biovil", "clip", "efficientnet", "rad-dino", "resnet", "swin",
                                         "timm-efficientnet", "timm-resnet", "timm-vit", "torchvision", "vit"),
                         [](const auto& info) {
                           auto name = info.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

// ---- many bands (tests/images/make_bands.py)

TEST(Bands, AreResizedAsPillowsFloatImagesAndNormalised) {
  const auto folder = tests::fixture("images/bands");
  const auto p = read_preprocessing(folder);
  EXPECT_EQ(p.channels(), 5);
  const auto golden = io::read_safetensors(folder / "pixel_values.safetensors");
  for (const auto& [name, wanted] : golden.tensors) {
    const auto found = band_values(p, tests::read_text(folder / name), name, 1'000'000);
    ASSERT_EQ(wanted.shape, (std::vector<int64_t>{5, 10, 10}));
    ASSERT_EQ(found.size(), 500u);
    std::vector<float> reference(found.size());
    std::memcpy(reference.data(), wanted.data, 4 * found.size());
    for (size_t i = 0; i < found.size(); ++i) ASSERT_NEAR(found[i], reference[i], 1e-5) << name << " " << i;
  }
}

TEST(Bands, WhatDoesNotFitIsNamed) {
  const auto folder = tests::fixture("images/bands");
  const auto p = read_preprocessing(folder);
  const auto message = [&](const std::string& file, int64_t least_side = 1) {
    return tests::message_of(
        [&] { band_values(p, tests::read_text(tests::fixture(file)), "x.tif", 1'000'000, least_side); });
  };
  EXPECT_NE(message("images/bad/bands.tif").find("x.tif: has 7 bands, the model takes 5"), std::string::npos);
  EXPECT_NE(message("images/decode/png-rgb.png").find("x.tif: has 3 bands, the model takes 5"), std::string::npos);
  EXPECT_EQ(message("images/bands/nan.tif"),
            "x.tif: holds samples that are NaN or infinite; give missing ones a number, or remove it.");
  EXPECT_NE(message("images/bad/truncated.tif").find("TIFF is damaged or cut off"), std::string::npos);
  EXPECT_NE(message("images/bands/float.tif", 10).find("has 14 x 9 pixels, less than one patch"), std::string::npos);
}

std::string message_for(const std::string& file, const std::string& text) {
  const tests::Scratch scratch;
  tests::write_text(scratch / file, text);
  return tests::message_of([&] { read_preprocessing(scratch.path); });
}

TEST(Preprocessing, MistakesNameTheFile) {
  EXPECT_NE(message_for("readme", "").find("says nothing about how its images are prepared"), std::string::npos);
  EXPECT_NE(message_for("preprocessor_config.json", "[").find("is not a JSON object"), std::string::npos);
  const auto unknown = message_for("preprocessor_config.json", R"({"image_processor_type": "FooImageProcessor"})");
  EXPECT_NE(unknown.find("`Foo` is not one that graft computes"), std::string::npos) << unknown;
  const auto sizes = message_for("preprocessor_config.json",
                                 R"({"image_processor_type": "CLIPImageProcessor", "do_center_crop": false})");
  EXPECT_NE(sizes.find("graft needs one size"), std::string::npos) << sizes;
  const auto mean =
      message_for("preprocessor_config.json", R"({"image_processor_type": "ViTImageProcessor", "image_mean": [1, 2]})");
  EXPECT_NE(mean.find("image_mean"), std::string::npos) << mean;
}

TEST(Preprocessing, TorchvisionsPresetResizesAndCropsTheMiddle) {
  const tests::Scratch scratch;
  tests::write_text(scratch / "transform.json", R"({"resize_size": 8, "crop_size": 6})");
  const auto p = read_preprocessing(scratch.path);
  Image image(16, 8, 3);
  for (int64_t x = 0; x < 16; ++x)
    for (int64_t y = 0; y < 8; ++y) std::memset(image.at(x, y), static_cast<int>(10 * x), 3);
  const auto result = prepared(p, image, "image");
  EXPECT_EQ(result.width, 6);
  EXPECT_EQ(*result.at(0, 0), 50);  // from column 5
  EXPECT_NEAR(p.value[0][255], (1 - 0.485) / 0.229, 1e-6);
}

TEST(Preprocessing, ACropThatIsLargerThanTheImageHasABlackBorder) {
  const tests::Scratch scratch;
  for (const int crop : {7, 8, 9, 12}) {
    tests::write_text(scratch / "transform.json", R"({"resize_size": 8, "crop_size": )" + std::to_string(crop) + "}");
    Image image(8, 8, 3);
    std::fill(image.samples.begin(), image.samples.end(), 200);
    const auto result = prepared(read_preprocessing(scratch.path), image, "image");
    EXPECT_EQ(result.width, crop);
    EXPECT_EQ(std::count(result.samples.begin(), result.samples.end(), 200), 3 * std::min(crop, 8) * std::min(crop, 8));
  }
}

TEST(Resize, APartIsWhatACropOfTheWholeIs) {
  Image image(45, 31, 3);
  Random random(1);
  for (auto& sample : image.samples) sample = static_cast<uint8_t>(random.below(256));
  const Box part{3, 2, 11, 9};
  for (const auto filter : {Filter::nearest, Filter::bilinear, Filter::bicubic, Filter::lanczos})
    for (const auto& [width, height] :
         {std::pair<int64_t, int64_t>{20, 14}, {45, 14}, {20, 31}, {45, 31}, {90, 60}, {44, 12}})
      EXPECT_EQ(resize(image, width, height, filter, part).samples,
                crop(resize(image, width, height, filter), part).samples)
          << static_cast<int>(filter) << " " << width << " x " << height;
}

TEST(Preprocessing, AStripThatTheResizeWouldBlowUpIsRefused) {
  const tests::Scratch scratch;
  tests::write_text(scratch / "transform.json", R"({"resize_size": 256, "crop_size": 224})");
  const auto message =
      tests::message_of([&] { prepared(read_preprocessing(scratch.path), Image(9000, 1, 3), "s.png"); });
  EXPECT_NE(message.find("s.png: is 9000 x 1 pixels"), std::string::npos) << message;
}

}  // namespace
}  // namespace graft::data
