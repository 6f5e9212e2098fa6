// Rows of one file become examples: texts, labels, groups; each mistake is named with file, row and column.
#pragma once

#include "graft/data/dataset.h"
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

/// Reads a file; skipped rows are added to `skipped`. Kind::data when no row of it can be used.
Intake read_examples(const fs::path& file, const DataOptions& options, LabelNames& labels, GroupNames& groups,
                     SkippedRows& skipped);

/// The words of a text whose words are labelled one by one: it was stored with single blanks between them.
int64_t count_words(std::string_view text);

}  // namespace graft::data
