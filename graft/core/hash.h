// SHA-256 (FIPS 180-4, by libcrypto) for content: source weights, store keys, checkpoint manifests.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

namespace graft {

class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;
  Sha256& update(const void* bytes, size_t size);
  Sha256& update(std::string_view text) { return update(text.data(), text.size()); }
  /// 64 lower-case hexadecimal digits; the object is spent afterwards.
  std::string hex();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

std::string sha256(std::string_view bytes);

/// The first 60 bits of the hash as a number in [0, 1).
double unit_hash(std::string_view bytes);

}  // namespace graft
