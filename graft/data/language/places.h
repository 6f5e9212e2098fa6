// Places in a text: of its characters, as tokenizers count, and of its bytes.
#pragma once

#include <string_view>
#include <vector>

namespace graft::data {

/// The byte at which each character of UTF-8 text begins, and the text's size as one more.
inline std::vector<size_t> character_starts(std::string_view text) {
  std::vector<size_t> starts;
  for (size_t i = 0; i < text.size(); ++i)
    if ((text[i] & 0xC0) != 0x80) starts.push_back(i);
  starts.push_back(text.size());
  return starts;
}

}  // namespace graft::data
