// What reading files, headers and settings asks of a text.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>

namespace graft {

/// ASCII letters in lower case; the other bytes of UTF-8 stay.
inline std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : static_cast<char>(c);
  });
  return text;
}

/// Without the blanks of ASCII at both ends; a view into `text`, empty when there is nothing else.
inline std::string_view trimmed(std::string_view text) {
  constexpr const char* blanks = " \t\r\n\f\v";
  const auto begin = text.find_first_not_of(blanks);
  if (begin == text.npos) return {};
  return text.substr(begin, text.find_last_not_of(blanks) + 1 - begin);
}

}  // namespace graft
