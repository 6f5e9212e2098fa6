#include "graft/data/dataset.h"

#include <algorithm>
#include <numeric>

#include "graft/core/error.h"
#include "graft/core/hash.h"
#include "graft/data/dataset_files.h"
#include "graft/data/intake.h"
#include "graft/data/splits.h"

namespace graft::data {
namespace {

void renumber(Examples& examples, const std::vector<int64_t>& renumbered, bool as_sets) {
  for (auto& label : examples.labels) label = renumbered[label];
  Ragged<int32_t> sets;
  for (int64_t i = 0; i < examples.label_sets.size(); ++i) {
    std::vector<int32_t> set(examples.label_sets[i].begin(), examples.label_sets[i].end());
    for (auto& label : set) label = static_cast<int32_t>(renumbered[label]);
    if (as_sets) std::sort(set.begin(), set.end());
    sets.push_back(set);
  }
  examples.label_sets = std::move(sets);
}

/// Ten equal parts of the rows by value.
std::vector<int64_t> deciles(const std::vector<double>& values) {
  std::vector<int64_t> order(values.size()), strata(values.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return values[a] < values[b]; });
  for (size_t rank = 0; rank < order.size(); ++rank)
    strata[order[rank]] = static_cast<int64_t>(10 * rank / order.size());
  return strata;
}

/// The rarest label of each set, so that rare labels are shared out first; -1 for no label.
std::vector<int64_t> rarest_labels(const Ragged<int32_t>& sets, size_t labels) {
  std::vector<int64_t> counts(labels);
  for (int64_t i = 0; i < sets.size(); ++i)
    for (const auto label : sets[i]) ++counts[label];
  std::vector<int64_t> strata;
  for (int64_t i = 0; i < sets.size(); ++i) {
    const auto set = sets[i];
    const auto rarest =
        std::min_element(set.begin(), set.end(), [&](int32_t a, int32_t b) { return counts[a] < counts[b]; });
    strata.push_back(rarest == set.end() ? -1 : *rarest);
  }
  return strata;
}

void split_train(Dataset& dataset, Intake train, const DataOptions& options, SplitSizes sizes, uint64_t seed,
                 const fs::path& file) {
  const auto parts =
      split_rows(strata_of(train.examples, options.task, dataset.label_names.size()), train.groups, sizes, seed);
  std::vector<int64_t> rows[3];
  for (size_t row = 0; row < parts.size(); ++row)
    rows[static_cast<size_t>(parts[row])].push_back(static_cast<int64_t>(row));
  const auto check = [&](const char* name, double size, const std::vector<int64_t>& part) {
    GRAFT_CHECK(
        data, size == 0 || !part.empty(),
        "{}: {} rows{} are too few for a {} part of {}; give more rows, a larger data.{}_fraction, or a {} file",
        file.string(), parts.size(),
        options.split_by.empty() ? "" : fmt::format(" in groups by `{}`", options.split_by), name, size, name, name);
  };
  check("validation", sizes.validation, rows[1]);
  check("test", sizes.test, rows[2]);
  dataset.train = take(train.examples, rows[0]);
  if (!rows[1].empty()) dataset.validation = take(train.examples, rows[1]);
  if (!rows[2].empty()) dataset.test = take(train.examples, rows[2]);
}

void check_labels(const Dataset& dataset, const DataOptions& options, const fs::path& file) {
  const auto& names = dataset.label_names;
  if (options.task == "classification" || options.task == "tokens")
    GRAFT_CHECK(data, names.size() > 1,
                "{}, column `{}`: expected at least two labels, found only `{}` in all {} rows; check data.label",
                file.string(), options.label, excerpt(names.front()), dataset.train.size());
  if (options.task == "multilabel")
    GRAFT_CHECK(data, !names.empty(), "{}, column `{}`: no row has a label; check data.label and data.label_separator",
                file.string(), options.label);
}

/// Splits that come as files must not share a group either.
void check_groups(const std::vector<std::pair<fs::path, const Intake*>>& splits, const GroupNames& groups,
                  const DataOptions& options) {
  std::vector<const fs::path*> owner(groups.names.size());
  for (const auto& [file, intake] : splits)
    for (size_t i = 0; i < intake->groups.size(); ++i) {
      auto& first = owner[intake->groups[i]];
      if (!first) first = &file;
      if (first != &file)
        fail_row(file, intake->rows[i], options.split_by,
                 fmt::format("the value `{}` is in {} too; rows with one value belong in one file",
                             excerpt(groups.names[intake->groups[i]]), first->string()));
    }
}

std::string hash_of(const Dataset& dataset) {
  Sha256 hash;
  const auto add_text = [&](std::string_view text) {
    hash.update(std::to_string(text.size())).update(":").update(text);
  };
  add_text(dataset.task);
  for (const auto& name : dataset.label_names) add_text(name);
  for (const auto* split : {&dataset.train, &dataset.validation, &dataset.test}) {
    hash.update("split").update(std::to_string(split->size()));
    for (int64_t i = 0; i < split->size(); ++i) {
      add_text(split->texts.text(i));
      if (!split->pairs.empty()) add_text(split->pairs.text(i));
      if (!split->labels.empty()) hash.update(std::to_string(split->labels[i]));
      if (!split->values.empty()) hash.update(&split->values[i], sizeof(double));
      if (!split->label_sets.empty()) hash.update(split->label_sets[i].data(), split->label_sets[i].size_bytes());
    }
  }
  return hash.hex();
}

}  // namespace

std::vector<int64_t> strata_of(const Examples& examples, const std::string& task, size_t labels) {
  if (task == "classification") return examples.labels;
  if (task == "regression") return deciles(examples.values);
  if (task == "multilabel") return rarest_labels(examples.label_sets, labels);
  return std::vector<int64_t>(examples.size(), 0);
}

Examples take(const Examples& all, const std::vector<int64_t>& rows) {
  Examples taken;
  for (const auto row : rows) {
    taken.texts.push_back(all.texts[row]);
    if (!all.pairs.empty()) taken.pairs.push_back(all.pairs[row]);
    if (!all.labels.empty()) taken.labels.push_back(all.labels[row]);
    if (!all.label_sets.empty()) taken.label_sets.push_back(all.label_sets[row]);
    if (!all.values.empty()) taken.values.push_back(all.values[row]);
  }
  return taken;
}

Dataset read_dataset(const DataOptions& options, uint64_t seed, const std::vector<std::string>& label_names) {
  const auto read = [](const fs::path& file, const DataOptions& o, LabelNames& labels, GroupNames& groups,
                       SkippedRows& skipped) { return read_examples(file, o, labels, groups, skipped); };
  return read_dataset(options, seed, label_names, Reading{find_files, read});
}

Dataset read_dataset(const DataOptions& options, uint64_t seed, const std::vector<std::string>& label_names,
                     const Reading& reading) {
  check_options(options);
  const bool is_new = label_names.empty();
  const auto files = reading.find(options, is_new);
  Dataset dataset{.task = options.task};
  LabelNames labels(options.task == "regression" ? std::vector<std::string>{} : label_names);
  GroupNames groups;
  const auto read = [&](const std::optional<fs::path>& file) {
    if (!file) return Intake{};
    dataset.files.push_back(file->string());
    return reading.read(*file, options, labels, groups, dataset.skipped);
  };
  auto train = read(files.train);
  if (labels.open()) renumber(train.examples, labels.close(), options.task == "multilabel");
  dataset.label_names = labels.names();
  auto validation = read(files.validation), test = read(files.test);
  if (!options.split_by.empty())
    check_groups({{files.train.value_or(""), &train},
                  {files.validation.value_or(""), &validation},
                  {files.test.value_or(""), &test}},
                 groups, options);
  dataset.validation = std::move(validation.examples);
  dataset.test = std::move(test.examples);
  if (files.train && !files.validation) {
    split_train(dataset, std::move(train), options,
                {options.validation_fraction, files.test ? 0 : options.test_fraction}, seed, *files.train);
  } else {
    dataset.train = std::move(train.examples);
  }
  if (is_new) check_labels(dataset, options, *files.train);
  if (options.max_train > 0 && options.max_train < dataset.train.size())
    dataset.train = take(dataset.train, sample_rows(strata_of(dataset.train, options.task, dataset.label_names.size()),
                                                    options.max_train, seed));
  dataset.hash = hash_of(dataset);
  return dataset;
}

}  // namespace graft::data
