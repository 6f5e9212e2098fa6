// Rows of one file become examples: texts, labels, groups; each mistake is named with file, row and column.
#pragma once

#include <functional>

#include "graft/data/dataset_files.h"
#include "graft/data/labels.h"

namespace graft::data {

struct Intake {
  Examples examples;             // labels as LabelNames counts them at the time
  std::vector<uint64_t> groups;  // of split_by; empty without it
  std::vector<int64_t> rows;     // where each example stood, for messages; empty without split_by
};

/// Values of split_by over all files.
struct GroupNames {
  std::unordered_map<std::string, uint64_t> indices;
  std::vector<std::string> names;
};

/// Reads a file, or the `content` of one in an archive; skipped rows are added to `skipped`. Kind::data when no row of it can be used.
Intake read_examples(const fs::path& file, const DataOptions& options, LabelNames& labels, GroupNames& groups,
                     SkippedRows& skipped, const std::string* content = nullptr);

/// How splits are found and read, where they are not files of text (images, graft/data/images).
struct Reading {
  std::function<DatasetFiles(const DataOptions& options, bool needs_train)> find;
  std::function<Intake(const fs::path& place, const DataOptions& options, LabelNames& labels, GroupNames& groups,
                       SkippedRows& skipped)>
      read;
};
/// read_dataset() with other hands.
Dataset read_dataset(const DataOptions& options, uint64_t seed, const std::vector<std::string>& label_names,
                     const Reading& reading);

/// The words of a text whose words are labelled one by one: it was stored with single blanks between them.
int64_t count_words(std::string_view text);

}  // namespace graft::data
