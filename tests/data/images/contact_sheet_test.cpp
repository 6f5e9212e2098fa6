#include "graft/data/images/contact_sheet.h"

#include <gtest/gtest.h>

#include "graft/data/images/decode.h"
#include "graft/data/images/encode.h"
#include "tests/fixtures.h"

namespace graft::data {
namespace {

TEST(ContactSheet, TilesStandInRowsOfSix) {
  const tests::Scratch scratch;
  Image red(10, 5, 3);
  for (size_t i = 0; i < red.samples.size(); i += 3) red.samples[i] = 255;
  write_contact_sheet(scratch / "sheet.png", std::vector<Tile>(7, {red, "is <a>\n0.9 b & c"}));
  const auto sheet = to_rgb(decode_image(tests::read_text(scratch / "sheet.png"), "sheet.png"));
  EXPECT_EQ(sheet.width, 6 * 152 + 8);
  EXPECT_EQ(sheet.height, 2 * 196 + 8);
  for (const auto& [x, y] : {std::pair{20, 20}, {20 + 5 * 152, 20}, {20, 20 + 196}}) {
    EXPECT_EQ(*sheet.at(x, y), 255) << x;
    EXPECT_EQ(*(sheet.at(x, y) + 1), 0) << x;
  }
  EXPECT_EQ(*(sheet.at(20 + 152, 20 + 196) + 1), 255);  // no eighth
}

TEST(EncodePng, IsReadBackEqual) {
  Image image(7, 3, 3);
  for (size_t i = 0; i < image.samples.size(); ++i) image.samples[i] = static_cast<uint8_t>(11 * i);
  EXPECT_EQ(to_rgb(decode_image(encode_png(image), "png")).samples, image.samples);
}

}  // namespace
}  // namespace graft::data
