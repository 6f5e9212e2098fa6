#include "graft/data/dataset_files.h"

#include <algorithm>

#include "graft/core/error.h"
#include "graft/core/text.h"

namespace graft::data {
namespace {

const std::vector<std::string> kTables = {".jsonl", ".ndjson", ".json", ".csv", ".tsv"};

std::vector<fs::path> sorted_files(const fs::path& folder) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder))
    if (entry.is_regular_file()) files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  return files;
}

std::optional<fs::path> split_file(const std::vector<fs::path>& files, const std::vector<std::string>& stems) {
  std::optional<fs::path> found;
  for (const auto& file : files) {
    if (!is_table(file) || std::find(stems.begin(), stems.end(), file.stem().string()) == stems.end()) continue;
    GRAFT_CHECK(data, !found,
                "{}: both {} and {} could be the {} file; remove one, or name the files in data.train, data.validation "
                "and data.test",
                file.parent_path().string(), found->filename().string(), file.filename().string(), stems.front());
    found = file;
  }
  return found;
}

DatasetFiles files_of_folder(const fs::path& folder, bool needs_train) {
  const auto files = sorted_files(folder);
  DatasetFiles found{split_file(files, {"train"}), split_file(files, {"validation", "val", "dev"}),
                     split_file(files, {"test"})};
  if (found.train || (!needs_train && (found.validation || found.test))) return found;
  std::vector<std::string> names;
  for (const auto& file : files) names.push_back(file.filename().string());
  fail(Kind::data,
       "{}: expected a file train.jsonl, train.json, train.csv or train.tsv, found {}; rename one, or set data.path to "
       "the file that is to be split",
       folder.string(), names.empty() ? "no files" : listed(names));
}

}  // namespace

bool is_table(const fs::path& file) {
  const auto extension = lower(file.extension().string());
  return std::find(kTables.begin(), kTables.end(), extension) != kTables.end();
}

DatasetFiles find_files(const DataOptions& options, bool needs_train) {
  const bool by_name = !options.train.empty() || !options.validation.empty() || !options.test.empty();
  GRAFT_CHECK(usage, options.path.empty() || !by_name,
              "data.path and data.train, data.validation, data.test exclude each other; keep one kind");
  if (by_name) {
    const auto given = [](const std::string& path) {
      return path.empty() ? std::optional<fs::path>() : std::optional<fs::path>(path);
    };
    GRAFT_CHECK(usage, !options.train.empty() || !needs_train, "data.train is missing; name the training file");
    return {given(options.train), given(options.validation), given(options.test)};
  }
  GRAFT_CHECK(usage, !options.path.empty(),
              "data.path is missing; name a folder with train, validation and test files, or one file");
  GRAFT_CHECK(data, fs::exists(options.path), "{}: there is no such file or folder; check data.path", options.path);
  if (fs::is_directory(options.path)) return files_of_folder(options.path, needs_train);
  return {.train = options.path};
}

void check_options(const DataOptions& options) {
  std::vector<std::string> mistakes;
  const auto one_of = [&](const char* name, const std::string& value, const std::vector<std::string>& allowed) {
    if (std::find(allowed.begin(), allowed.end(), value) != allowed.end()) return;
    const auto near = nearest(value, allowed);
    mistakes.push_back(fmt::format("data.{}: expected {}, found `{}`{}", name, fmt::join(allowed, " or "), value,
                                   near.empty() ? "" : fmt::format("; did you mean `{}`?", near)));
  };
  const auto fraction = [&](const char* name, double value) {
    if (!(value >= 0 && value < 1))
      mistakes.push_back(fmt::format("data.{}: expected a number from 0 to below 1, found {}", name, value));
  };
  one_of("task", options.task, {"classification", "multilabel", "regression", "tokens", "causal_lm"});
  one_of("bad_rows", options.bad_rows, {"stop", "skip"});
  fraction("validation_fraction", options.validation_fraction);
  fraction("test_fraction", options.test_fraction);
  if (options.validation_fraction + options.test_fraction >= 1)
    mistakes.push_back(
        fmt::format("data.validation_fraction and data.test_fraction: expected less than 1 together, found {}",
                    options.validation_fraction + options.test_fraction));
  if (options.label_separator.empty()) mistakes.push_back("data.label_separator: expected text, found none");
  if (options.max_train < 0)
    mistakes.push_back(fmt::format("data.max_train: expected 0 or more, found {}", options.max_train));
  if (options.task == "tokens" && !options.pair.empty())
    mistakes.push_back("data.pair: the task tokens has no second text; remove it");
  if (options.task == "causal_lm" && !options.pair.empty())
    mistakes.push_back("data.pair: the task causal_lm reads prompt and completion; remove it");
  GRAFT_CHECK(usage, mistakes.empty(), "{}", fmt::join(mistakes, "\n"));
}

}  // namespace graft::data
