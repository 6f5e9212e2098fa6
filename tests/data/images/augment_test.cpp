#include "graft/data/images/augment.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "graft/core/random.h"
#include "graft/io/safetensors.h"
#include "tests/fixtures.h"

namespace graft::data {
namespace {

struct Fixture {
  Fixture() : image(40, 30, 3) {
    tests::write_text(scratch / "transform.json", R"({"resize_size": 20, "crop_size": 16})");
    p = read_preprocessing(scratch.path);
    Random random(1);
    for (auto& sample : image.samples) sample = static_cast<uint8_t>(random.below(256));
  }
  tests::Scratch scratch;
  Preprocessing p;
  Image image;
};

/// Only what is named does anything.
AugmentOptions nothing() { return {.enabled = true, .smallest_crop = 1, .flip_horizontal = 0}; }

TEST(Augment, AViewIsAFunctionOfTheSeed) {
  const Fixture f;
  const AugmentOptions all{.enabled = true,
                           .flip_vertical = 0.5,
                           .rotation = 20,
                           .brightness = 0.4,
                           .contrast = 0.4,
                           .saturation = 0.4,
                           .randaugment = 2,
                           .erasing = 0.5};
  int equal = 0;
  for (uint64_t seed = 0; seed < 50; ++seed) {
    const auto view = augmented(f.image, f.p, all, seed);
    EXPECT_EQ(view.width, 16);
    EXPECT_EQ(view.height, 16);
    EXPECT_EQ(view.samples, augmented(f.image, f.p, all, seed).samples);
    equal += view.samples == augmented(f.image, f.p, all, seed + 1).samples;
  }
  EXPECT_EQ(equal, 0);
}

TEST(Augment, NothingIsTheResizedImage) {
  const Fixture f;
  EXPECT_EQ(augmented(f.image, f.p, nothing(), 3).samples, resize(f.image, 16, 16, f.p.filter).samples);
}

TEST(Augment, FlipsMirror) {
  const Fixture f;
  auto options = nothing();
  options.flip_horizontal = 1;
  const auto plain = augmented(f.image, f.p, nothing(), 3), mirrored = augmented(f.image, f.p, options, 3);
  options.flip_vertical = 1;
  const auto turned = augmented(f.image, f.p, options, 3);
  for (int64_t y = 0; y < 16; ++y)
    for (int64_t x = 0; x < 16; ++x) {
      ASSERT_TRUE(std::equal(plain.at(x, y), plain.at(x, y) + 3, mirrored.at(15 - x, y)));
      ASSERT_TRUE(std::equal(plain.at(x, y), plain.at(x, y) + 3, turned.at(15 - x, 15 - y)));
    }
}

TEST(Augment, EachOperationAloneChangesTheImageAndKeepsItsSize) {
  const Fixture f;
  const auto plain = augmented(f.image, f.p, nothing(), 3).samples;
  for (const auto member : {&AugmentOptions::brightness, &AugmentOptions::contrast, &AugmentOptions::saturation,
                            &AugmentOptions::erasing, &AugmentOptions::rotation}) {
    auto options = nothing();
    options.*member = 1;
    const auto view = augmented(f.image, f.p, options, 3).samples;
    EXPECT_EQ(view.size(), plain.size());
    EXPECT_NE(view, plain);
  }
  auto options = nothing();
  options.randaugment = 1;
  options.randaugment_strength = 30;  // the strongest, over all operations
  int changed = 0;
  for (uint64_t seed = 0; seed < 100; ++seed) changed += augmented(f.image, f.p, options, seed).samples != plain;
  EXPECT_GT(changed, 70);
}

// ---- against Pillow and torchvision (tests/images/make_augment.py)

struct Reference {
  Reference() : file(io::read_safetensors(tests::fixture("images/augment.safetensors"))) {}
  std::vector<uint8_t> samples(const std::string& name) const {
    const auto& view = file.tensors.at(name);
    const auto* bytes = reinterpret_cast<const uint8_t*>(view.data);
    return {bytes, bytes + io::element_count(view.shape)};
  }
  Image image() const {
    Image image(16, 16, 3);
    image.samples = samples("image");
    return image;
  }
  decltype(io::read_safetensors(fs::path())) file;
};

int largest_difference(const std::vector<uint8_t>& a, const std::vector<uint8_t>& b) {
  int most = 0;
  for (size_t i = 0; i < a.size(); ++i) most = std::max(most, std::abs(a[i] - b[i]));
  return most;
}

TEST(Augment, RandAugmentEqualizesAndSharpensAsPillow) {
  const Fixture f;
  const Reference reference;
  auto options = nothing();
  options.randaugment = 1;
  options.randaugment_strength = 30;
  for (const auto* name : {"equalize", "sharpness 1.9", "sharpness 0.1"}) {
    int nearest = 255;
    for (uint64_t seed = 0; seed < 200; ++seed)
      nearest = std::min(nearest, largest_difference(augmented(reference.image(), f.p, options, seed).samples,
                                                     reference.samples(name)));
    EXPECT_LE(nearest, std::string(name) == "equalize" ? 0 : 1) << name;
  }
}

TEST(Augment, HueTurnsAsTorchvisionsAndLeavesGrayAlone) {
  const Fixture f;
  const Reference reference;
  for (const auto& [name, turns] : {std::pair{"hue 0.25", 0.25}, {"hue -0.1", -0.1}}) {
    auto image = reference.image();
    turn_hue(image, turns);
    EXPECT_LE(largest_difference(image.samples, reference.samples(name)), 1) << name;
    EXPECT_GT(largest_difference(image.samples, reference.samples("image")), 30) << name;
  }
  auto options = nothing();
  options.hue = 0.5;
  const auto view = augmented(reference.image(), f.p, options, 1).samples, plain = reference.samples("image");
  EXPECT_NE(view, plain);
  EXPECT_TRUE(std::equal(view.begin() + 4 * 48, view.begin() + 8 * 48, plain.begin() + 4 * 48));
}

TEST(Augment, CropsKeepTheAreaAskedForAndSeeEveryCorner) {
  Fixture f;
  std::fill(f.image.samples.begin(), f.image.samples.end(), 0);
  for (const auto& [x, y] : {std::pair{0, 0}, {39, 0}, {0, 29}, {39, 29}}) *f.image.at(x, y) = 255;
  auto options = nothing();
  options.smallest_crop = 0.2;
  int corners = 0, none = 0;
  for (uint64_t seed = 0; seed < 300; ++seed) {
    const auto view = augmented(f.image, f.p, options, seed).samples;
    const bool seen = std::any_of(view.begin(), view.end(), [](uint8_t s) { return s > 0; });
    corners += seen;
    none += !seen;
  }
  EXPECT_GT(corners, 10);
  EXPECT_GT(none, 100);
}

}  // namespace
}  // namespace graft::data
