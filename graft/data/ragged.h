// Rows of unequal length, one after another: texts (char) and token ids (int32_t). Past a limit they
// move to an unlinked temporary file that is mapped, so that a data set may be larger than memory.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

namespace graft::data {

template <class T>
class Ragged {
 public:
  Ragged() : Ragged(256ull << 20) {}
  /// Bytes kept in memory before the rows move to a file in the system's temporary folder.
  explicit Ragged(uint64_t memory_limit);
  void push_back(std::span<const T> row);
  std::span<const T> operator[](int64_t row) const;
  int64_t length(int64_t row) const { return static_cast<int64_t>(offsets_[row + 1] - offsets_[row]); }
  int64_t size() const { return static_cast<int64_t>(offsets_.size()) - 1; }
  bool empty() const { return size() == 0; }
  /// All values of all rows.
  uint64_t total() const { return offsets_.back(); }
  /// The row as text (T = char).
  std::string_view text(int64_t row) const requires std::is_same_v<T, char> {
    const auto r = (*this)[row];
    return {r.data(), r.size()};
  }

 private:
  struct Spill;
  std::vector<uint64_t> offsets_{0};
  std::vector<T> memory_;
  std::shared_ptr<Spill> spill_;  // null while everything is in memory
  uint64_t memory_limit_;
};

}  // namespace graft::data
