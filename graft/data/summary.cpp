// What a person should know about a data set before training: balance, lengths, duplicates.
#include <algorithm>
#include <array>
#include <cmath>

#include "graft/core/error.h"
#include "graft/core/hash.h"
#include "graft/data/dataset.h"

namespace graft::data {
namespace {

using Key = std::array<uint64_t, 2>;  // 128 bits of SHA-256: no two texts share them by chance

Key key_of(const Examples& examples, int64_t row) {
  Sha256 hash;
  hash.update(examples.texts.text(row));
  if (!examples.pairs.empty()) hash.update(std::string_view("\0", 1)).update(examples.pairs.text(row));
  const auto hex = hash.hex();
  return {std::stoull(hex.substr(0, 16), nullptr, 16), std::stoull(hex.substr(16, 16), nullptr, 16)};
}

std::vector<Key> sorted_keys(const Examples& examples) {
  std::vector<Key> keys;
  keys.reserve(examples.size());
  for (int64_t row = 0; row < examples.size(); ++row) keys.push_back(key_of(examples, row));
  std::sort(keys.begin(), keys.end());
  return keys;
}

/// Rows that repeat an earlier one.
int64_t repeated(const std::vector<Key>& keys) {
  int64_t count = 0;
  for (size_t i = 1; i < keys.size(); ++i) count += keys[i] == keys[i - 1];
  return count;
}

/// Rows of `keys` that are in `others` too.
int64_t shared(const std::vector<Key>& keys, const std::vector<Key>& others) {
  return std::count_if(keys.begin(), keys.end(),
                       [&](const Key& key) { return std::binary_search(others.begin(), others.end(), key); });
}

int64_t characters(std::string_view text) {
  return std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; });
}

Json lengths_of(const Examples& examples) {
  std::vector<int64_t> lengths;
  for (int64_t row = 0; row < examples.size(); ++row)
    lengths.push_back(characters(examples.texts.text(row)) +
                      (examples.pairs.empty() ? 0 : characters(examples.pairs.text(row))));
  std::sort(lengths.begin(), lengths.end());
  const auto at = [&](double part) {  // nearest rank
    const auto rank = static_cast<size_t>(std::ceil(part * static_cast<double>(lengths.size())));
    return lengths[std::max<size_t>(rank, 1) - 1];
  };
  return {{"min", at(0)}, {"median", at(0.5)}, {"percentile_95", at(0.95)}, {"max", at(1)}};
}

Json classes_of(const Examples& examples, const std::vector<std::string>& names) {
  std::vector<int64_t> counts(names.size());
  for (const auto label : examples.labels) ++counts[label];
  for (int64_t row = 0; row < examples.label_sets.size(); ++row)
    for (const auto label : examples.label_sets[row]) ++counts[label];
  const auto all = examples.labels.empty() ? examples.label_sets.total() : examples.labels.size();
  auto classes = Json::array();
  for (size_t i = 0; i < names.size(); ++i)
    classes.push_back({{"name", names[i]},
                       {"count", counts[i]},
                       {"share", all ? static_cast<double>(counts[i]) / static_cast<double>(all) : 0.0}});
  return classes;
}

Json values_of(const std::vector<double>& values) {
  const auto [least, most] = std::minmax_element(values.begin(), values.end());
  double mean = 0;
  for (const auto value : values) mean += value / static_cast<double>(values.size());
  return {{"min", *least}, {"mean", mean}, {"max", *most}};
}

Json split_summary(const Examples& examples, const std::vector<std::string>& names, int64_t duplicates,
                   bool no_lengths) {
  Json split = {{"rows", examples.size()}, {"duplicates", duplicates}};
  if (examples.size() == 0) return split;
  if (!no_lengths) split["characters"] = lengths_of(examples);
  if (!names.empty()) split["classes"] = classes_of(examples, names);
  if (!examples.values.empty()) split["values"] = values_of(examples.values);
  return split;
}

std::string split_text(const std::string& name, const Json& split) {
  auto text = fmt::format("{}: {} rows", name, split["rows"].get<int64_t>());
  if (const auto count = split["duplicates"].get<int64_t>()) text += fmt::format(", {} repeat another", count);
  if (split.contains("characters")) {
    const auto& c = split["characters"];
    text += fmt::format("; characters: {} to {}, median {}, 95 % up to {}", c["min"].dump(), c["max"].dump(),
                        c["median"].dump(), c["percentile_95"].dump());
  }
  text += "\n";
  if (split.contains("values"))
    text += fmt::format("  values: {} to {}, mean {:.4g}\n", split["values"]["min"].dump(),
                        split["values"]["max"].dump(), split["values"]["mean"].get<double>());
  if (!split.contains("classes")) return text;
  for (const auto& c : split["classes"])
    text += fmt::format("  {:>8}  {:5.1f} %  {}\n", c["count"].get<int64_t>(), 100 * c["share"].get<double>(),
                        c["name"].get<std::string>());
  return text;
}

}  // namespace

Json summary(const Dataset& dataset) {
  const auto train = sorted_keys(dataset.train), validation = sorted_keys(dataset.validation),
             test = sorted_keys(dataset.test);
  const auto& names = dataset.label_names;
  const bool no_lengths = dataset.of_images || dataset.task == "causal_lm";  // names of files; rows as JSON
  return {{"task", dataset.task},
          {"labels", names.size()},
          {"splits",
           {{"train", split_summary(dataset.train, names, repeated(train), no_lengths)},
            {"validation", split_summary(dataset.validation, names, repeated(validation), no_lengths)},
            {"test", split_summary(dataset.test, names, repeated(test), no_lengths)}}},
          {"shared",
           {{"validation_with_train", shared(validation, train)},
            {"test_with_train", shared(test, train)},
            {"test_with_validation", shared(test, validation)}}},
          {"skipped", {{"count", dataset.skipped.count}, {"first", dataset.skipped.first}}},
          {"files", dataset.files},
          {"hash", dataset.hash}};
}

std::string summary_text(const Json& summary) {
  auto text = summary["task"].get<std::string>();
  if (text != "causal_lm") text += fmt::format(", {} labels", summary["labels"].get<int64_t>());
  text += "\n";
  for (const auto& [name, split] : summary["splits"].items())
    if (split["rows"] != 0) text += split_text(name, split);
  for (const auto* name : {"validation", "test"}) {
    std::vector<std::string> absent;
    if (summary["splits"][name].contains("classes"))
      for (const auto& c : summary["splits"][name]["classes"])
        if (c["count"] == 0) absent.push_back(c["name"]);
    if (!absent.empty())
      text += fmt::format("warning: {} has no example of {}; its scores say nothing of {}\n", name, listed(absent),
                          absent.size() == 1 ? "that class" : "those classes");
  }
  const std::pair<const char*, const char*> pairs[] = {
      {"validation_with_train", "validation rows are in train too; the validation score will be too good"},
      {"test_with_train", "test rows are in train too; the test score will be too good"},
      {"test_with_validation", "test rows are in validation too"}};
  for (const auto& [key, sentence] : pairs)
    if (const auto count = summary["shared"][key].get<int64_t>()) text += fmt::format("{} {}\n", count, sentence);
  if (const auto count = summary["skipped"]["count"].get<int64_t>())
    text +=
        fmt::format("{} rows were skipped; the first: {}\n", count, summary["skipped"]["first"][0].get<std::string>());
  return text;
}

}  // namespace graft::data
