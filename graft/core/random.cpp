#include "graft/core/random.h"

namespace graft {
namespace {
uint64_t mix(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}
constexpr uint64_t kGolden = 0x9e3779b97f4a7c15ull;
}  // namespace

uint64_t seed_of(uint64_t seed, std::initializer_list<std::string_view> purpose,
                 std::initializer_list<uint64_t> position) {
  uint64_t h = mix(seed + kGolden);
  for (const auto word : purpose) {
    for (const unsigned char c : word) h = mix(h + kGolden + c);
    h = mix(h ^ kGolden);  // ends a word: {"ab","c"} is not {"a","bc"}
  }
  for (const auto value : position) h = mix(h + kGolden + mix(value + kGolden));
  return h;
}

uint64_t Random::next() { return mix(state_ += kGolden); }

uint64_t Random::below(uint64_t n) {
  // Rejection keeps every value equally likely.
  const uint64_t limit = UINT64_MAX - UINT64_MAX % n;
  uint64_t x = next();
  while (x >= limit) x = next();
  return x % n;
}

}  // namespace graft
