#include "graft/core/error.h"

#include <gtest/gtest.h>

#include "graft/core/hash.h"
#include "graft/core/random.h"

namespace graft {
namespace {

TEST(Error, NearestFindsAMisspellingAndNothingElse) {
  EXPECT_EQ(nearest("epohcs", {"epochs", "patience", "lr"}), "epochs");
  EXPECT_EQ(nearest("zzzzzz", {"epochs", "patience"}), "");
}

TEST(Error, ListedCutsAfterTheLimit) { EXPECT_EQ(listed({"a", "b", "c"}, 2), "a, b, ... and 1 more"); }

TEST(Hash, EqualsThePublishedVector) {  // FIPS 180-4, "abc"
  EXPECT_EQ(sha256("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(Random, SeedsDependOnEachPartAndItsPlace) {
  EXPECT_NE(seed_of(0, {"ab", "c"}), seed_of(0, {"a", "bc"}));
  EXPECT_NE(seed_of(0, {"a"}, {1, 2}), seed_of(0, {"a"}, {2, 1}));
  EXPECT_EQ(seed_of(7, {"a"}, {1}), seed_of(7, {"a"}, {1}));
}

TEST(Random, ShuffleIsAPermutation) {
  std::vector<int> values{0, 1, 2, 3, 4, 5, 6, 7};
  auto shuffled = values;
  Random(1).shuffle(shuffled);
  EXPECT_NE(values, shuffled);
  std::sort(shuffled.begin(), shuffled.end());
  EXPECT_EQ(values, shuffled);
}

}  // namespace
}  // namespace graft
