// Seeds as pure functions: no generator lives across steps, so a resumed run draws what the unbroken one drew.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string_view>
#include <vector>

namespace graft {

/// SplitMix64 over the parts: seed_of(seed, {"finetune", "head"}, {epoch, step}).
uint64_t seed_of(uint64_t seed, std::initializer_list<std::string_view> purpose,
                 std::initializer_list<uint64_t> position = {});

/// A small generator with a fixed sequence on every platform (SplitMix64, Steele et al. 2014).
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t next();
  /// Uniform in [0, n), n > 0.
  uint64_t below(uint64_t n);
  /// Uniform in [0, 1).
  double uniform() { return static_cast<double>(next() >> 11) * 0x1.0p-53; }
  /// Fisher-Yates.
  template <class T>
  void shuffle(std::vector<T>& values) {
    for (size_t i = values.size(); i > 1; --i) std::swap(values[i - 1], values[below(i)]);
  }

 private:
  uint64_t state_;
};

}  // namespace graft
