// Errors as sentences: where, what was expected, what was found, what to do.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace graft {

/// What kind of thing went wrong; the value is the program's exit code.
enum class Kind {
  bug = 1,        // ours
  usage = 2,      // command line or recipe
  data = 3,       // rows, labels, encodings
  model = 4,      // weights, configuration, tokenizer
  disk = 5,       // space, permissions, a failed write
  numerical = 6,  // NaN or infinity in training
  memory = 7,
  network = 8,
};

/// The one exception type for what the person at the keyboard can mend. Bugs are GRAFT_ASSERT.
class Error : public std::runtime_error {
 public:
  Error(Kind kind, const std::string& sentence) : std::runtime_error(sentence), kind(kind) {}
  Kind kind;
};

template <class... Args>
[[noreturn]] void fail(Kind kind, fmt::format_string<Args...> format, Args&&... args) {
  throw Error(kind, fmt::format(format, std::forward<Args>(args)...));
}

#define GRAFT_CHECK(kind, condition, ...)                              \
  do {                                                                 \
    if (!(condition)) ::graft::fail(::graft::Kind::kind, __VA_ARGS__); \
  } while (false)

#define GRAFT_ASSERT(condition, ...)                                                                          \
  do {                                                                                                        \
    if (!(condition)) throw std::logic_error("bug in graft: " #condition ": " + fmt::format("" __VA_ARGS__)); \
  } while (false)

/// The candidate nearest to `word` by edit distance, or "" when none is near enough to be a misspelling.
std::string nearest(const std::string& word, const std::vector<std::string>& candidates);

/// "a, b, c, ... and 17 more": at most `limit` items, for messages.
std::string listed(const std::vector<std::string>& items, size_t limit = 10);

}  // namespace graft
