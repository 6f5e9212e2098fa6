// The two names that the hub has for content: SHA-256 for large files, git's SHA-1 of a blob for small ones.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace graft::hub {

class ContentHash {
 public:
  /// `name` is what the content should hash to: 64 digits are a SHA-256, 40 a blob of git with `size` bytes.
  ContentHash(const std::string& name, uint64_t size);
  ~ContentHash();
  ContentHash(const ContentHash&) = delete;
  ContentHash& operator=(const ContentHash&) = delete;
  void restart();
  void update(std::string_view bytes);
  /// Lower-case hexadecimal digits of all bytes since the start.
  std::string hex();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// 40 or 64 lower-case hexadecimal digits.
bool is_content_name(std::string_view name);

}  // namespace graft::hub
