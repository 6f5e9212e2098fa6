// Separated values as RFC 4180 has them. A quote that is never closed swallows all rows after it, so it is an error even
// where bad rows are skipped.
#include <set>

#include "graft/core/error.h"
#include "graft/data/rows_in.h"

namespace graft::data {
namespace {

struct RowReader {
  ByteReader& bytes;
  char separator;
  const RowGuard& guard;
  int64_t row = 0;   // line where it begins
  int64_t size = 0;  // bytes so far
  std::vector<std::string> cells;
  int64_t quote_line = 0;  // where the last quote opened, 0: none
  bool text_after_quote = false, too_long = false;

  /// False at the end of the file. Afterwards the reader stands behind the row, good or not.
  bool next() {
    skip_empty_lines();
    if (bytes.peek() == ByteReader::kEnd) return false;
    row = bytes.line();
    size = quote_line = 0;
    cells.clear();
    text_after_quote = too_long = false;
    do {
      cells.emplace_back();
      read_cell();
    } while (take(separator));
    end_row();
    return true;
  }

 private:
  bool at_row_end() { return bytes.peek() == '\n' || bytes.peek() == '\r' || bytes.peek() == ByteReader::kEnd; }

  bool take(char wanted) {
    if (bytes.peek() != static_cast<unsigned char>(wanted)) return false;
    bytes.next();
    return true;
  }

  void end_row() {
    if (take('\r') && bytes.peek() != '\n') return;
    take('\n');
  }

  void skip_empty_lines() {
    while (bytes.peek() == '\n' || bytes.peek() == '\r') bytes.next();
  }

  void append(int byte) {
    too_long |= ++size > guard.max_row_bytes;
    if (!too_long) cells.back().push_back(static_cast<char>(byte));
  }

  void read_cell() {
    if (take('"')) read_quoted();
    while (!at_row_end() && bytes.peek() != static_cast<unsigned char>(separator)) append(bytes.next());
  }

  void read_quoted() {
    quote_line = bytes.line();
    for (;;) {
      const int byte = bytes.next();
      if (byte == '"' && !take('"')) break;
      if (byte == ByteReader::kEnd) fail_open_quote();
      append(byte);
    }
    text_after_quote |= !at_row_end() && bytes.peek() != static_cast<unsigned char>(separator);
  }

  [[noreturn]] void fail_open_quote() const;
};

/// Not Kind::data: it is passed on by the guard, whatever is done with bad rows.
struct OpenQuote {
  std::string sentence;
};

void RowReader::fail_open_quote() const {
  throw OpenQuote{
      fmt::format("{}, row {}: the quote that opens in line {} is not closed before the end of the file; close it, or "
                  "write it twice where it is part of the text",
                  guard.file.string(), row, quote_line)};
}

std::vector<std::string> header_of(RowReader& reader, const RowGuard& guard) {
  const auto& names = reader.cells;
  std::set<std::string> seen;
  for (const auto& name : names) {
    guard.check_utf8(name, reader.row);
    GRAFT_CHECK(data, seen.insert(name).second, "{}: the column `{}` is there twice; give each column its own name",
                guard.file.string(), name);
  }
  return names;
}

Row row_of(const RowReader& reader, const std::vector<std::string>& columns, const RowGuard& guard) {
  if (reader.too_long && reader.quote_line)
    guard.fail_long(
        reader.row,
        fmt::format("split the text or remove the row, or close the quote that opens in line {}", reader.quote_line));
  if (reader.too_long) guard.fail_long(reader.row);
  if (reader.text_after_quote)
    fail_row(guard.file, reader.row, "",
             "expected a separator after a closing quote, found text; write quotes inside quotes twice");
  if (reader.cells.size() != columns.size())
    fail_row(guard.file, reader.row, "",
             fmt::format("expected {} cells as in the header, found {}; quote cells that hold the separator",
                         columns.size(), reader.cells.size()));
  Row row{reader.row, Json::object()};
  for (size_t i = 0; i < columns.size(); ++i) {
    guard.check_utf8(reader.cells[i], reader.row);
    row.cells[columns[i]] = reader.cells[i];
  }
  return row;
}

}  // namespace

void read_separated(ByteReader& bytes, char separator, RowGuard& guard, const UseRow& use) {
  RowReader reader{bytes, separator, guard};
  try {
    if (!reader.next()) return;
    const auto columns = header_of(reader, guard);
    while (reader.next()) guard.run([&] { use(row_of(reader, columns, guard)); });
  } catch (const OpenQuote& quote) {
    fail(Kind::data, "{}", quote.sentence);
  }
}

}  // namespace graft::data
