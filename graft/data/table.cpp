#include "graft/data/table.h"

#include <cstring>
#include <sstream>

#include "graft/core/error.h"
#include "graft/core/text.h"
#include "graft/data/rows_in.h"

namespace graft::data {

ByteReader::ByteReader(const fs::path& file)
    : file_(file), in_(std::make_unique<std::ifstream>(file, std::ios::binary)), buffer_(1 << 18) {
  GRAFT_CHECK(data, fs::exists(file), "{}: there is no such file; check the path", file.string());
  GRAFT_CHECK(data, fs::is_regular_file(file) && *in_, "{}: cannot be read as a file; check its kind and permissions",
              file.string());
  begin();
}

ByteReader::ByteReader(const fs::path& file, std::string content)
    : file_(file), in_(std::make_unique<std::istringstream>(std::move(content))), buffer_(1 << 18) {
  begin();
}

void ByteReader::begin() {
  fill();
  const std::string_view start(buffer_.data(), size_);
  GRAFT_CHECK(data, !start.starts_with("\xff\xfe") && !start.starts_with("\xfe\xff"),
              "{}: expected UTF-8, found UTF-16 (byte-order mark); convert it: iconv -f UTF-16 -t UTF-8",
              file_.string());
  if (start.starts_with("\xef\xbb\xbf")) at_ = 3;
}

bool ByteReader::fill() {
  in_->read(buffer_.data(), static_cast<std::streamsize>(buffer_.size()));
  at_ = 0;
  size_ = static_cast<size_t>(in_->gcount());
  GRAFT_CHECK(disk, !in_->bad(), "{}: reading failed after line {}; check the disk", file_.string(), line_);
  return size_ > 0;
}

bool ByteReader::next_line(std::string& line, int64_t limit, bool& too_long) {
  line.clear();
  too_long = false;
  if (peek() == kEnd) return false;
  while (peek() != kEnd) {
    const auto* begin = buffer_.data() + at_;
    const auto* end = static_cast<const char*>(std::memchr(begin, '\n', size_ - at_));
    const auto length = static_cast<size_t>((end ? end : buffer_.data() + size_) - begin);
    too_long |= static_cast<int64_t>(line.size() + length) > limit;
    if (!too_long) line.append(begin, length);
    at_ += length + (end != nullptr);
    if (end) break;
  }
  ++line_;
  if (line.ends_with('\r')) line.pop_back();
  return true;
}

void RowGuard::run(const std::function<void()>& work) {
  try {
    work();
  } catch (const Error& e) {
    if (e.kind != Kind::data || bad_rows == BadRows::stop) throw;
    ++skipped.count;
    if (skipped.first.size() < 10) skipped.first.push_back(e.what());
  }
}

void RowGuard::check_utf8(const std::string& bytes, int64_t row) const {
  size_t bad = 0;
  if (is_utf8(bytes, &bad)) return;
  fail_row(file, row, "",
           fmt::format("expected UTF-8, found the byte 0x{:02x} at byte {} of the row; save the file as UTF-8",
                       static_cast<unsigned char>(bytes[bad]), bad + 1));
}

void RowGuard::fail_long(int64_t row, const std::string& hint) const {
  fail_row(file, row, "", fmt::format("expected at most {} bytes in a row, found more; {}", max_row_bytes, hint));
}

void fail_row(const fs::path& file, int64_t row, const std::string& column, const std::string& sentence) {
  if (column.empty()) fail(Kind::data, "{}, row {}: {}", file.string(), row, sentence);
  fail(Kind::data, "{}, row {}, column `{}`: {}", file.string(), row, column, sentence);
}

void read_text_lines(ByteReader& bytes, RowGuard& guard, const UseRow& use) {
  std::string line;
  bool too_long = false;
  for (auto row = bytes.line(); bytes.next_line(line, guard.max_row_bytes, too_long); row = bytes.line())
    guard.run([&] {
      if (too_long) guard.fail_long(row);
      guard.check_utf8(line, row);
      if (line.find_first_not_of(" \t") != line.npos) use({row, {{"text", line}}});
    });
}

void read_json_lines(ByteReader& bytes, RowGuard& guard, const UseRow& use) {
  std::string line;
  bool too_long = false;
  const auto parsed = [&](int64_t row) {
    try {
      return Json::parse(line);
    } catch (const Json::parse_error& e) {
      fail_row(guard.file, row, "",
               fmt::format("expected one JSON object a line, found text that is not JSON at byte {}: {}", e.byte,
                           excerpt(line, 40)));
    }
  };
  for (auto row = bytes.line(); bytes.next_line(line, guard.max_row_bytes, too_long); row = bytes.line()) {
    if (!too_long && line.find_first_not_of(" \t\r") == line.npos) continue;
    guard.run([&] {
      if (too_long) guard.fail_long(row);
      guard.check_utf8(line, row);
      auto cells = parsed(row);
      if (!cells.is_object())
        fail_row(guard.file, row, "",
                 fmt::format("expected one JSON object a line, found {} {}; `jq -c '.[]'` turns an array into lines",
                             cells.is_array() ? "an" : "a", cells.type_name()));
      use({row, std::move(cells)});
    });
  }
}

SkippedRows for_each_row(const fs::path& file, BadRows bad_rows, const UseRow& use, int64_t max_row_bytes,
                         const std::string* content) {
  const auto extension = lower(file.extension().string());
  RowGuard guard(file, bad_rows, max_row_bytes);
  auto bytes = content ? ByteReader(file, *content) : ByteReader(file);
  if (extension == ".jsonl" || extension == ".ndjson" || extension == ".json") {
    read_json_lines(bytes, guard, use);
  } else if (extension == ".csv" || extension == ".tsv") {
    read_separated(bytes, extension == ".csv" ? ',' : '\t', guard, use);
  } else if (extension == ".txt") {
    read_text_lines(bytes, guard, use);
  } else {
    fail(
        Kind::data,
        "{}: expected a file that ends in .jsonl, .ndjson, .json, .csv, .tsv or .txt, found `{}`; rename or convert it",
        file.string(), extension);
  }
  return std::move(guard.skipped);
}

}  // namespace graft::data
