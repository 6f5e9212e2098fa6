// Which files a [data] section means.
#pragma once

#include <optional>

#include "graft/data/dataset.h"

namespace graft::data {

struct DatasetFiles {
  std::optional<fs::path> train, validation, test;
};

/// Kind::usage for a section that contradicts itself, Kind::data for a folder without the files.
/// With `needs_train` false (a trained model is there) any of the files is enough.
DatasetFiles find_files(const DataOptions& options, bool needs_train);

/// By its extension: JSONL, CSV, TSV.
bool is_table(const fs::path& file);

/// Kind::usage, all mistakes in one sentence: values that no option may have.
void check_options(const DataOptions& options);

}  // namespace graft::data
