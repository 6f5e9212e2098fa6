// Bytes of a file in order, through one buffer; what the readers of table.cpp share.
#pragma once

#include <fstream>

#include "graft/data/table.h"

namespace graft::data {

class ByteReader {
 public:
  static constexpr int kEnd = -1;

  /// Skips a UTF-8 byte-order mark; Kind::data for a missing file and for UTF-16.
  explicit ByteReader(const fs::path& file);
  /// What an archive holds under that name.
  ByteReader(const fs::path& file, std::string content);
  int peek() { return at_ < size_ || fill() ? static_cast<unsigned char>(buffer_[at_]) : kEnd; }
  int next() {
    const int byte = peek();
    at_ += byte != kEnd;
    line_ += byte == '\n';
    return byte;
  }
  /// The next line without its end, cut at `limit` bytes (then `too_long`); false at the end of the file.
  bool next_line(std::string& line, int64_t limit, bool& too_long);
  /// Number of the line that comes next, from 1.
  int64_t line() const { return line_; }

 private:
  bool fill();
  void begin();

  fs::path file_;
  std::unique_ptr<std::istream> in_;
  std::vector<char> buffer_;
  size_t at_ = 0, size_ = 0;
  int64_t line_ = 1;
};

/// Runs the work on one row; a Kind::data error stops the reading or is counted, as the person chose.
class RowGuard {
 public:
  RowGuard(const fs::path& file, BadRows bad_rows, int64_t max_row_bytes)
      : file(file), bad_rows(bad_rows), max_row_bytes(max_row_bytes) {}
  void run(const std::function<void()>& work);
  void check_utf8(const std::string& bytes, int64_t row) const;
  [[noreturn]] void fail_long(int64_t row, const std::string& hint = "split the text or remove the row") const;

  const fs::path& file;
  BadRows bad_rows;
  int64_t max_row_bytes;
  SkippedRows skipped;
};

using UseRow = std::function<void(const Row&)>;
void read_json_lines(ByteReader& bytes, RowGuard& guard, const UseRow& use);
void read_text_lines(ByteReader& bytes, RowGuard& guard, const UseRow& use);
void read_separated(ByteReader& bytes, char separator, RowGuard& guard, const UseRow& use);

}  // namespace graft::data
