// Reads the central directory at the end of the archive, then each record's own header for where its bytes begin.
#include "graft/io/zip.h"

#include <zlib.h>

#include <algorithm>
#include <functional>
#include <memory>

#include "graft/core/error.h"

namespace graft::io {
namespace {

constexpr uint32_t local_header = 0x04034b50, directory_entry = 0x02014b50, directory_end = 0x06054b50;
constexpr uint32_t zip64_end = 0x06064b50, zip64_locator = 0x07064b50;
constexpr uint64_t needs_zip64 = 0xffffffff;

/// Little-endian numbers from a view; every read is checked.
class Reader {
 public:
  Reader(std::string_view bytes, const std::string& where) : bytes_(bytes), where_(where) {}

  uint64_t number(uint64_t offset, int size) const {
    uint64_t value = 0;
    const auto text = piece(offset, size);
    for (int i = size; i-- > 0;) value = value << 8 | static_cast<unsigned char>(text[i]);
    return value;
  }

  std::string_view piece(uint64_t offset, uint64_t size) const {
    if (offset > bytes_.size() || size > bytes_.size() - offset) {
      fail_damaged(fmt::format("{} bytes from byte {} on are expected, the file has {}", size, offset, bytes_.size()));
    }
    return bytes_.substr(offset, size);
  }

  [[noreturn]] void fail_damaged(const std::string& what) const {
    fail(Kind::model, "{}: the archive is damaged or cut off: {}; fetch it again", where_, what);
  }

  std::string_view bytes() const { return bytes_; }

 private:
  std::string_view bytes_;
  const std::string& where_;
};

uint64_t find_directory_end(const Reader& reader) {
  constexpr uint64_t size = 22, longest_comment = 65535;
  const uint64_t length = reader.bytes().size();
  for (uint64_t back = size; back <= std::min(length, size + longest_comment); ++back) {
    if (reader.number(length - back, 4) == directory_end) return length - back;
  }
  reader.fail_damaged("its directory, which stands at the end, is missing");
}

struct Directory {
  uint64_t offset = 0, entries = 0;
};

Directory find_directory(const Reader& reader) {
  const auto end = find_directory_end(reader);
  Directory directory{reader.number(end + 16, 4), reader.number(end + 10, 2)};
  if (directory.offset != needs_zip64 && directory.entries != 0xffff) return directory;
  if (end < 20 || reader.number(end - 20, 4) != zip64_locator) return directory;
  const auto end64 = reader.number(end - 20 + 8, 8);
  if (reader.number(end64, 4) != zip64_end) reader.fail_damaged("the zip64 directory is missing");
  return {reader.number(end64 + 48, 8), reader.number(end64 + 32, 8)};
}

struct ZipEntry {
  std::string name;
  uint64_t flags = 0, method = 0, crc = 0, packed = 0, size = 0, offset = 0, next = 0;
};

/// Sizes and the offset that did not fit 32 bits stand in the extra field 0x0001, only those, in this order.
void read_zip64_extra(const Reader& reader, uint64_t begin, uint64_t end, ZipEntry& entry) {
  while (begin + 4 <= end) {
    const auto id = reader.number(begin, 2);
    const auto last = begin + 4 + reader.number(begin + 2, 2);
    auto at = begin + 4;
    if (id == 1) {
      for (uint64_t* field : {&entry.size, &entry.packed, &entry.offset}) {
        if (*field != needs_zip64) continue;
        if (at + 8 > last) reader.fail_damaged("a zip64 field is too short");
        *field = reader.number(at, 8);
        at += 8;
      }
      return;
    }
    begin = last;
  }
}

ZipEntry read_entry(const Reader& reader, uint64_t at) {
  if (reader.number(at, 4) != directory_entry) reader.fail_damaged(fmt::format("no directory entry at byte {}", at));
  ZipEntry entry;
  entry.flags = reader.number(at + 8, 2);
  entry.method = reader.number(at + 10, 2);
  entry.crc = reader.number(at + 16, 4);
  entry.packed = reader.number(at + 20, 4);
  entry.size = reader.number(at + 24, 4);
  entry.offset = reader.number(at + 42, 4);
  const auto name_size = reader.number(at + 28, 2), extra = reader.number(at + 30, 2),
             comment = reader.number(at + 32, 2);
  entry.name = reader.piece(at + 46, name_size);
  read_zip64_extra(reader, at + 46 + name_size, at + 46 + name_size + extra, entry);
  entry.next = at + 46 + name_size + extra + comment;
  return entry;
}

/// The record's bytes as they are in the archive: packed, unless it is stored.
std::string_view content(const Reader& reader, const ZipEntry& entry) {
  if (reader.number(entry.offset, 4) != local_header)
    reader.fail_damaged(fmt::format("no record at byte {}", entry.offset));
  const auto begin = entry.offset + 30 + reader.number(entry.offset + 26, 2) + reader.number(entry.offset + 28, 2);
  return reader.piece(begin, entry.packed);
}

std::vector<ZipEntry> read_entries(const Reader& reader) {
  const auto directory = find_directory(reader);
  std::vector<ZipEntry> entries;
  uint64_t at = directory.offset;
  for (uint64_t i = 0; i < directory.entries; ++i) {
    entries.push_back(read_entry(reader, at));
    at = entries.back().next;
  }
  return entries;
}

/// Calls `use` with the pieces of a deflated record (RFC 1951).
void inflate_pieces(const Reader& reader, std::string_view packed, const std::function<void(std::string_view)>& use) {
  z_stream stream{};
  GRAFT_ASSERT(inflateInit2(&stream, -MAX_WBITS) == Z_OK);
  const std::unique_ptr<z_stream, int (*)(z_stream*)> owner(&stream, inflateEnd);
  std::string piece(1 << 20, '\0');
  int code = Z_OK;
  while (code != Z_STREAM_END) {
    if (stream.avail_in == 0) {
      const auto size = std::min<size_t>(packed.size(), 1 << 30);
      stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(packed.data()));
      stream.avail_in = static_cast<uInt>(size);
      packed.remove_prefix(size);
    }
    stream.next_out = reinterpret_cast<Bytef*>(piece.data());
    stream.avail_out = static_cast<uInt>(piece.size());
    code = inflate(&stream, Z_NO_FLUSH);
    const auto made = piece.size() - stream.avail_out;
    const bool stuck = made == 0 && stream.avail_in == 0 && packed.empty();
    if ((code != Z_OK && code != Z_STREAM_END && code != Z_BUF_ERROR) || (stuck && code != Z_STREAM_END))
      reader.fail_damaged("a compressed file does not unpack");
    use(std::string_view(piece).substr(0, made));
  }
}

}  // namespace

std::vector<std::string> zip_names(std::string_view bytes, const std::string& where) {
  std::vector<std::string> names;
  for (const auto& entry : read_entries(Reader(bytes, where)))
    if (!entry.name.ends_with('/')) names.push_back(entry.name);
  return names;
}

namespace {

ZipEntry readable_entry(const Reader& reader, const std::string& where, const std::string& name) {
  const auto entries = read_entries(reader);
  const auto entry = std::find_if(entries.begin(), entries.end(), [&](const ZipEntry& e) { return e.name == name; });
  GRAFT_CHECK(model, entry != entries.end(), "{}: has no file `{}`; it has {}", where, name,
              listed(zip_names(reader.bytes(), where)));
  GRAFT_CHECK(model, (entry->flags & 1) == 0 && (entry->method == 0 || entry->method == 8),
              "{}: `{}` is encrypted or packed by another method than deflate; unpack it by another program", where,
              name);
  return *entry;
}

}  // namespace

std::string zip_file_start(std::string_view bytes, const std::string& where, const std::string& name, size_t most) {
  const Reader reader(bytes, where);
  const auto entry = readable_entry(reader, where, name);
  if (entry.method == 0) return std::string(content(reader, entry).substr(0, most));
  struct Enough {};
  std::string start;
  try {
    inflate_pieces(reader, content(reader, entry), [&](std::string_view piece) {
      start.append(piece.substr(0, most - start.size()));
      if (start.size() == most) throw Enough();
    });
  } catch (const Enough&) {
  }
  return start;
}

void unpack_zip_file(std::string_view bytes, const std::string& where, const std::string& name,
                     const fs::path& target) {
  const Reader reader(bytes, where);
  const auto unpacked = readable_entry(reader, where, name);
  const auto* entry = &unpacked;
  require_space(target, entry->size, "unpacking " + name);
  FileWriter writer(target);
  auto crc = crc32(0, nullptr, 0);
  const auto use = [&](std::string_view piece) {
    writer.write(piece);
    if (writer.size() > entry->size) reader.fail_damaged(name + " is longer than its directory says");
    crc = crc32_z(crc, reinterpret_cast<const Bytef*>(piece.data()), piece.size());
  };
  if (entry->method == 0) use(content(reader, *entry));
  else inflate_pieces(reader, content(reader, *entry), use);
  if (writer.size() != entry->size || crc != entry->crc)
    reader.fail_damaged(name + " does not have the size and checksum of its directory entry");
  writer.commit();
}

std::map<std::string, std::string_view> zip_records(std::string_view bytes, const std::string& where) {
  const Reader reader(bytes, where);
  std::map<std::string, std::string_view> records;
  for (const auto& entry : read_entries(reader)) {
    const bool plain = entry.method == 0 && (entry.flags & 1) == 0 && entry.packed == entry.size;
    GRAFT_CHECK(model, plain,
                "{}: record `{}` is compressed or encrypted, torch.save stores records as they are; unpack it and save "
                "it again with torch.save",
                where, entry.name);
    records[entry.name] = content(reader, entry);
  }
  return records;
}

}  // namespace graft::io
