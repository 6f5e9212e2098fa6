// Rows from JSONL, CSV and TSV files and lines from plain text, in constant memory, with their place for messages.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "graft/core/json.h"

namespace graft::data {

namespace fs = std::filesystem;

/// One row: column name -> value. CSV cells are strings; JSON values keep their type.
struct Row {
  int64_t number = 0;  // line number where the row begins, from 1
  Json cells;          // object
};

/// What to do with a row that cannot be used.
enum class BadRows { stop, skip };

struct SkippedRows {
  int64_t count = 0;
  std::vector<std::string> first;  // the sentences of the first ten
};

/// Calls `use(row)` for each row of the file, in order. `use` may throw Kind::data (by `fail_row`) for a row it cannot use.
/// Format by extension: .jsonl .ndjson .json, .csv, .tsv (RFC 4180: quotes, doubled quotes, line breaks in quotes; a
/// UTF-8 byte-order mark is skipped), .txt (one row a line, column "text").
/// A row that is not UTF-8, not JSON, has another number of cells than the header, or is longer than `max_row_bytes`
/// is an error "file, row N, column C: ..." or counted, by `bad_rows`. UTF-16 files are named as such. A quote that is never
/// closed is always an error, with the line where it opens: the rows behind it cannot be told apart. Empty lines are passed over.
/// `content`: what the file holds, where it is one in an archive.
SkippedRows for_each_row(const fs::path& file, BadRows bad_rows, const std::function<void(const Row&)>& use,
                         int64_t max_row_bytes = 10'000'000, const std::string* content = nullptr);

/// Throws Kind::data: "file, row N, column `C`: sentence".
[[noreturn]] void fail_row(const fs::path& file, int64_t row, const std::string& column, const std::string& sentence);

/// True for valid UTF-8 (RFC 3629); else the offset of the first bad byte through `bad_offset`.
bool is_utf8(std::string_view text, size_t* bad_offset = nullptr);

/// The beginning of a text for a message, at most `bytes` long and cut between characters.
std::string excerpt(std::string_view text, size_t bytes = 60);

}  // namespace graft::data
