#include "graft/core/error.h"

#include <algorithm>

namespace graft {

std::string nearest(const std::string& word, const std::vector<std::string>& candidates) {
  std::string best;
  size_t best_distance = word.size() / 3 + 2;  // further away it is another word
  for (const auto& candidate : candidates) {
    std::vector<size_t> row(candidate.size() + 1);
    for (size_t j = 0; j < row.size(); ++j) row[j] = j;
    for (size_t i = 1; i <= word.size(); ++i) {
      size_t diagonal = row[0];
      row[0] = i;
      for (size_t j = 1; j <= candidate.size(); ++j) {
        const size_t above = row[j];
        row[j] = std::min({above + 1, row[j - 1] + 1, diagonal + (word[i - 1] != candidate[j - 1])});
        diagonal = above;
      }
    }
    if (row.back() < best_distance) {
      best_distance = row.back();
      best = candidate;
    }
  }
  return best;
}

std::string listed(const std::vector<std::string>& items, size_t limit) {
  std::string text;
  for (size_t i = 0; i < std::min(items.size(), limit); ++i) text += (i ? ", " : "") + items[i];
  if (items.size() > limit) text += fmt::format(", ... and {} more", items.size() - limit);
  return text;
}

}  // namespace graft
