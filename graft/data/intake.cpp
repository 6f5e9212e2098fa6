#include "graft/data/intake.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "graft/core/error.h"
#include "graft/core/text.h"
#include "graft/data/language/language_rows.h"

namespace graft::data {
namespace {

constexpr const char* kBlanks = " \t\r\n\f\v";

std::vector<std::string> words_of(std::string_view text) {
  std::vector<std::string> words;
  for (auto begin = text.find_first_not_of(kBlanks); begin != text.npos;
       begin = text.find_first_not_of(kBlanks, begin)) {
    const auto end = std::min(text.find_first_of(kBlanks, begin), text.size());
    words.emplace_back(text.substr(begin, end - begin));
    begin = end;
  }
  return words;
}

struct RowIntake {
  const fs::path& file;
  const DataOptions& options;
  LabelNames& labels;
  GroupNames& groups;
  const Row& row;

  /// The row's example in one piece, so that a row that fails half-way leaves nothing behind.
  struct One {
    std::string text, pair;
    int64_t label = 0;
    std::vector<int32_t> set;
    double value = 0;
    uint64_t group = 0;
  };

  One read() const {
    One one;
    const auto words = options.task == "tokens" ? list_of_words() : std::vector<std::string>{};
    one.text = options.task == "tokens"      ? joined(words)
               : options.task == "causal_lm" ? language_row(file, row, options.text)
                                             : text_of(options.text, "data.text");
    if (!options.pair.empty()) one.pair = text_of(options.pair, "data.pair");
    if (!options.split_by.empty()) one.group = group();
    if (options.task == "classification") one.label = index_of(name_of(cell(options.label, "data.label")));
    if (options.task == "regression") one.value = number();
    if (options.task == "multilabel") one.set = label_set();
    if (options.task == "tokens") one.set = word_labels(words.size());
    return one;
  }

 private:
  [[noreturn]] void fail_here(const std::string& column, const std::string& sentence) const {
    fail_row(file, row.number, column, sentence);
  }

  const Json& cell(const std::string& column, const char* option) const {
    if (row.cells.contains(column)) return row.cells[column];
    std::vector<std::string> columns;
    for (const auto& item : row.cells.items()) columns.push_back(item.key());
    const auto near = nearest(column, columns);
    fail_here(column,
              fmt::format("there is no such column; the columns are {}{}; set {} to the right one", listed(columns),
                          near.empty() ? "" : fmt::format("; the nearest is `{}`", near), option));
  }

  std::string text_of(const std::string& column, const char* option) const {
    const auto& value = cell(column, option);
    if (!value.is_string())
      fail_here(column, fmt::format("expected text, found {}; put it in quotes", excerpt(value.dump())));
    const auto& text = value.get_ref<const std::string&>();
    if (trimmed(text).empty()) fail_here(column, "expected text, found none; fill the cell or remove the row");
    return text;
  }

  std::string name_of(const Json& value) const {
    auto label = label_text(value);
    if (!label.ok)
      fail_here(options.label,
                fmt::format("expected a label (text, whole number, true or false), found {}", label.text));
    return std::move(label.text);
  }

  int64_t index_of(const std::string& name) const {
    const auto index = labels.index(name, file, row.number);
    if (index < 0) fail_here(options.label, labels.unknown_sentence(name));
    return index;
  }

  uint64_t group() const {
    const auto value = label_text(cell(options.split_by, "data.split_by"));
    if (!value.ok)
      fail_here(options.split_by,
                fmt::format("expected text or a whole number to keep rows together by, found {}", value.text));
    const auto [known, is_new] = groups.indices.emplace(value.text, groups.names.size());
    if (is_new) groups.names.push_back(value.text);
    return known->second;
  }

  double number() const {
    const auto& value = cell(options.label, "data.label");
    double number = 0;
    bool ok = value.is_number();
    if (ok) number = value.get<double>();
    if (value.is_string()) {
      auto text = trimmed(value.get_ref<const std::string&>());
      if (text.starts_with('+')) text.remove_prefix(1);
      const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), number);
      ok = !text.empty() && problem == std::errc() && end == text.data() + text.size();
    }
    if (!ok || !std::isfinite(number))
      fail_here(options.label, fmt::format("expected a finite number, found {}", excerpt(value.dump())));
    return number;
  }

  std::vector<int32_t> label_set() const {
    const auto& value = cell(options.label, "data.label");
    std::vector<std::string> names;
    if (value.is_array()) {
      for (const auto& item : value) names.push_back(name_of(item));
    } else if (value.is_string()) {
      names = separated(value.get_ref<const std::string&>());
    } else {
      fail_here(options.label, fmt::format("expected a list of labels, or text with `{}` between them, found {}",
                                           options.label_separator, excerpt(value.dump())));
    }
    std::vector<int32_t> set;
    for (const auto& name : names) set.push_back(static_cast<int32_t>(index_of(name)));
    std::sort(set.begin(), set.end());
    set.erase(std::unique(set.begin(), set.end()), set.end());
    return set;
  }

  std::vector<std::string> separated(std::string_view text) const {
    std::vector<std::string> names;
    if (trimmed(text).empty()) return names;
    for (size_t begin = 0; begin <= text.size();) {
      const auto end = std::min(text.find(options.label_separator, begin), text.size());
      names.push_back(name_of(std::string(trimmed(text.substr(begin, end - begin)))));
      begin = end + options.label_separator.size();
    }
    return names;
  }

  std::vector<std::string> list_of_words() const {
    const auto& value = cell(options.text, "data.text");
    std::vector<std::string> words;
    if (value.is_string()) {
      words = words_of(value.get_ref<const std::string&>());
    } else if (value.is_array()) {
      for (const auto& item : value) {
        if (!item.is_string() || item.get_ref<const std::string&>().empty() ||
            item.get_ref<const std::string&>().find_first_of(kBlanks) != std::string::npos)
          fail_here(options.text, fmt::format("expected words without blanks, found {}", excerpt(item.dump())));
        words.push_back(item);
      }
    } else {
      fail_here(options.text, fmt::format("expected a list of words or text, found {}", excerpt(value.dump())));
    }
    if (words.empty()) fail_here(options.text, "expected text, found none; fill the cell or remove the row");
    return words;
  }

  static std::string joined(const std::vector<std::string>& words) {
    std::string text;
    for (const auto& word : words) text += (text.empty() ? "" : " ") + word;
    return text;
  }

  std::vector<int32_t> word_labels(size_t words) const {
    const auto& value = cell(options.label, "data.label");
    std::vector<std::string> names;
    if (value.is_array()) {
      for (const auto& item : value) names.push_back(name_of(item));
    } else if (value.is_string()) {
      names = words_of(value.get_ref<const std::string&>());
    } else {
      fail_here(options.label,
                fmt::format("expected a list with one label for each word, found {}", excerpt(value.dump())));
    }
    if (names.size() != words)
      fail_here(options.label, fmt::format("expected {} labels, one for each word, found {}", words, names.size()));
    std::vector<int32_t> indices;
    for (const auto& name : names) indices.push_back(static_cast<int32_t>(index_of(name)));
    return indices;
  }
};

void append(Intake& intake, RowIntake::One&& one, const DataOptions& options, int64_t row) {
  auto& e = intake.examples;
  e.texts.push_back(one.text);
  if (!options.pair.empty()) e.pairs.push_back(one.pair);
  if (options.task == "classification") e.labels.push_back(one.label);
  if (options.task == "regression") e.values.push_back(one.value);
  if (options.task == "multilabel" || options.task == "tokens") e.label_sets.push_back(one.set);
  if (options.split_by.empty()) return;
  intake.groups.push_back(one.group);
  intake.rows.push_back(row);
}

}  // namespace

Intake read_examples(const fs::path& file, const DataOptions& options, LabelNames& labels, GroupNames& groups,
                     SkippedRows& skipped, const std::string* content) {
  Intake intake;
  const auto bad_rows = options.bad_rows == "skip" ? BadRows::skip : BadRows::stop;
  constexpr int64_t kLongestRow = 10'000'000;
  auto here = for_each_row(
      file, bad_rows,
      [&](const Row& row) {
        append(intake, RowIntake{file, options, labels, groups, row}.read(), options, row.number);
      },
      kLongestRow, content);
  GRAFT_CHECK(data, intake.examples.size() > 0, "{}: {}", file.string(),
              here.count ? fmt::format("none of the {} rows can be used; the first: {}", here.count, here.first.front())
                         : std::string("there are no rows; give a file with examples"));
  skipped.count += here.count;
  for (auto& sentence : here.first)
    if (skipped.first.size() < 10) skipped.first.push_back(std::move(sentence));
  return intake;
}

int64_t count_words(std::string_view text) { return std::count(text.begin(), text.end(), ' ') + 1; }

}  // namespace graft::data
