// Images as a user has them, through the whole program.
#include <gtest/gtest.h>

#include "graft/io/safetensors.h"
#include "tests/cli/program.h"

namespace graft {
namespace {

using tests::fixture;
using tests::graft;
using tests::Scratch;

TEST(PreprocessCommand, WritesWhatTheReferenceGives) {
  const Scratch scratch;
  const auto folder = fixture("parity/preprocess/clip");
  const auto outcome =
      graft({"preprocess", "--json", "--sixteen-bit", "saturate", "--model", folder.string(), "--outputs",
             (scratch / "out.safetensors").string(), fixture("parity/preprocess/images").string()});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(Json::parse(outcome.out)["images"], 12);
  const auto found = io::read_safetensors(scratch / "out.safetensors"),
             wanted = io::read_safetensors(folder / "pixel_values.safetensors");
  ASSERT_EQ(found.tensors.size(), wanted.tensors.size());
  for (const auto& [name, view] : wanted.tensors) {
    const auto& ours = found.tensors.at(name);
    ASSERT_EQ(ours.shape, view.shape) << name;
    for (int64_t i = 0; i < io::element_count(view.shape); ++i) {
      float a = 0, b = 0;
      std::memcpy(&a, ours.data + 4 * i, 4), std::memcpy(&b, view.data + 4 * i, 4);
      ASSERT_NEAR(a, b, 1e-6) << name;
    }
  }
}

TEST(PreprocessCommand, ABadImageIsNamed) {
  const Scratch scratch;
  for (const auto* name : {"truncated.jpg", "bomb.png", "empty.png", "text.jpg"}) {
    const auto outcome = graft({"preprocess", "--model", fixture("parity/preprocess/vit").string(), "--outputs",
                                (scratch / "out.safetensors").string(), fixture("images/bad").string() + "/" + name});
    EXPECT_EQ(outcome.code, 3) << outcome.err;
    EXPECT_NE(outcome.err.find(name), std::string::npos) << outcome.err;
    EXPECT_FALSE(std::filesystem::exists(scratch / "out.safetensors"));
  }
}

}  // namespace
}  // namespace graft
