#include "graft/data/labels.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <numeric>
#include <optional>

#include "graft/core/error.h"
#include "graft/core/text.h"
#include "graft/data/table.h"

namespace graft::data {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

std::optional<double> number_of(const std::string& text) {
  if (text.empty() || !(is_digit(text[0]) || (text[0] == '-' && text.size() > 1 && is_digit(text[1]))))
    return std::nullopt;
  double value = 0;
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), value);
  return problem == std::errc() && end == text.data() + text.size() ? std::optional(value) : std::nullopt;
}

/// The digits at `at` without leading zeros; `at` moves behind them.
std::string_view take_digits(const std::string& text, size_t& at) {
  while (at + 1 < text.size() && text[at] == '0' && is_digit(text[at + 1])) ++at;
  const auto begin = at;
  while (at < text.size() && is_digit(text[at])) ++at;
  return std::string_view(text).substr(begin, at - begin);
}

int compare_as_text(const std::string& a, const std::string& b) {
  size_t i = 0, j = 0;
  while (i < a.size() && j < b.size()) {
    if (is_digit(a[i]) && is_digit(b[j])) {
      const auto x = take_digits(a, i), y = take_digits(b, j);
      if (x.size() != y.size()) return x.size() < y.size() ? -1 : 1;
      if (const int order = x.compare(y)) return order;
    } else {
      const auto x = static_cast<unsigned char>(a[i++]), y = static_cast<unsigned char>(b[j++]);
      if (x != y) return x < y ? -1 : 1;
    }
  }
  if (i == a.size() && j == b.size()) return a.compare(b);  // "01" and "1"
  return i == a.size() ? -1 : 1;
}

/// Lower case (ASCII) without blanks: what two spellings of one label share.
std::string spelling(const std::string& name) {
  std::string folded;
  for (const char c : name)
    if (!std::isspace(static_cast<unsigned char>(c))) folded += static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
  return folded;
}

}  // namespace

LabelText label_text(const Json& value) {
  if (value.is_string()) {
    const auto& text = value.get_ref<const std::string&>();
    if (trimmed(text).empty()) return {false, "an empty text"};
    return {true, text};
  }
  if (value.is_number_integer() || value.is_boolean()) return {true, value.dump()};
  if (value.is_number()) return {false, "the number " + value.dump()};
  return {false, value.is_null() ? "null" : value.is_array() ? "a list" : "an object"};
}

bool natural_less(const std::string& a, const std::string& b) {
  const auto x = number_of(a), y = number_of(b);
  if (x && y && *x != *y) return *x < *y;
  if (x.has_value() != y.has_value()) return x.has_value();
  return compare_as_text(a, b) < 0;
}

LabelNames::LabelNames(const std::vector<std::string>& names) : names_(names), open_(names.empty()) {
  for (size_t i = 0; i < names.size(); ++i) indices_[names[i]] = static_cast<int64_t>(i);
}

int64_t LabelNames::index(const std::string& name, const std::filesystem::path& file, int64_t row) {
  if (const auto known = indices_.find(name); known != indices_.end()) return known->second;
  if (!open_) return -1;
  const auto index = static_cast<int64_t>(names_.size());
  indices_[name] = index;
  names_.push_back(name);
  places_.push_back(fmt::format("{}, row {}", file.string(), row));
  return index;
}

std::vector<int64_t> LabelNames::close() {
  std::map<std::string, size_t> spellings;
  for (size_t i = 0; i < names_.size(); ++i) {
    const auto [same, is_new] = spellings.emplace(spelling(names_[i]), i);
    GRAFT_CHECK(data, is_new, "the labels `{}` ({}) and `{}` ({}) differ only in case or blanks; write them alike",
                excerpt(names_[same->second]), places_[same->second], excerpt(names_[i]), places_[i]);
  }
  std::vector<int64_t> order(names_.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return natural_less(names_[a], names_[b]); });
  std::vector<int64_t> renumbered(names_.size());
  std::vector<std::string> sorted;
  for (const auto old : order) {
    renumbered[old] = static_cast<int64_t>(sorted.size());
    indices_[names_[old]] = renumbered[old];
    sorted.push_back(names_[old]);
  }
  names_ = std::move(sorted);
  open_ = false;
  return renumbered;
}

std::string LabelNames::unknown_sentence(const std::string& name) const {
  const auto near = nearest(name, names_);
  return fmt::format(
      "the label `{}` is not among those of training: {}{}; correct it, or add rows with it to the training file",
      excerpt(name), listed(names_), near.empty() ? "" : fmt::format("; the nearest is `{}`", excerpt(near)));
}

}  // namespace graft::data
