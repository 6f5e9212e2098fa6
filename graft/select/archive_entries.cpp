// tar: POSIX.1-2001 (ustar with pax records) and GNU's long names; gzip by zlib, which reads plain files too.
#include "graft/select/archive_entries.h"

#include <zlib.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "graft/core/error.h"
#include "graft/core/text.h"
#include "graft/io/file.h"
#include "graft/io/zip.h"

namespace graft::select {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMostNames = 20'000, kMostStarts = 50, kStart = 64 << 10, kBlock = 512;

bool is_hidden(const std::string& name) {
  for (const auto& part : fs::path(name))
    if ((part.string().starts_with('.') && part != "." && part != "..") || part == "__MACOSX") return true;
  return false;
}

ArchiveEntries of_zip(const fs::path& path, bool (*wanted)(const std::string&)) {
  ArchiveEntries found;
  const io::MappedFile file(path);
  for (const auto& name : io::zip_names(file.bytes(), path.string())) {
    if (is_hidden(name) || found.names.size() == kMostNames) continue;
    found.names.push_back(name);
  }
  std::vector<std::string> some;
  std::copy_if(found.names.begin(), found.names.end(), std::back_inserter(some), wanted);
  const auto step = std::max<size_t>(1, some.size() / kMostStarts);
  for (size_t i = 0; i < some.size() && found.starts.size() < kMostStarts; i += step)
    found.starts.push_back({some[i], io::zip_file_start(file.bytes(), path.string(), some[i], kStart)});
  return found;
}

class Tar {
 public:
  explicit Tar(const fs::path& path) : path_(path), file_(gzopen(path.c_str(), "rb"), gzclose) {
    GRAFT_CHECK(data, file_, "{}: cannot be opened for reading. Correct its permissions.", path.string());
  }

  ArchiveEntries read(bool (*wanted)(const std::string&)) {
    ArchiveEntries found;
    std::string long_name;
    bool ended = false;
    for (std::string header; found.names.size() < kMostNames && !(header = take(kBlock, true)).empty();) {
      ended = header.find_first_not_of('\0') == std::string::npos;
      if (ended) break;
      auto name = text(header, 345, 155, header.compare(257, 6, std::string("ustar\0", 6)) == 0);
      name += (name.empty() ? "" : "/") + text(header, 0, 100, true);
      const auto size = number(header);
      const char type = header[156];
      if (type == 'L' || type == 'x') {
        const auto content = take(size, false);
        skip((kBlock - size % kBlock) % kBlock);
        if (type == 'L') long_name = content.c_str();
        else if (const auto at = content.find("path="); at != std::string::npos)
          long_name = content.substr(at + 5, content.find('\n', at) - at - 5);
        continue;
      }
      if (!long_name.empty()) name = std::exchange(long_name, "");
      const bool file = (type == '0' || type == '\0') && !is_hidden(name);
      uint64_t left = size + (kBlock - size % kBlock) % kBlock;
      if (file && wanted(name) && found.starts.size() < kMostStarts) {
        found.starts.push_back({name, take(std::min<uint64_t>(size, kStart), false)});
        left -= found.starts.back().bytes.size();
      }
      if (file) found.names.push_back(name);
      skip(left);
    }
    if (!ended && found.names.size() < kMostNames) fail_damaged();
    return found;
  }

 private:
  [[noreturn]] void fail_damaged() const {
    fail(Kind::data, "{}: the archive is damaged or cut off; make it again.", path_.string());
  }
  /// `size` bytes; none at the end of the file, where `may_end`.
  std::string take(uint64_t size, bool may_end) {
    constexpr uint64_t most = 16 << 20;  // names are shorter
    if (size > most) fail_damaged();
    std::string bytes(size, '\0');
    const auto got = gzread(file_.get(), bytes.data(), static_cast<unsigned>(size));
    if (got == 0 && may_end) return "";
    if (got != static_cast<int>(size)) fail_damaged();
    return bytes;
  }
  void skip(uint64_t size) {
    const auto place = gzseek(file_.get(), static_cast<z_off_t>(size), SEEK_CUR);
    // What is not packed may be passed over beyond its end without a complaint.
    if (place < 0 || (gzdirect(file_.get()) && static_cast<uint64_t>(place) > fs::file_size(path_))) fail_damaged();
  }
  static std::string text(const std::string& header, size_t at, size_t size, bool there) {
    return there ? std::string(header.substr(at, size).c_str()) : std::string();
  }
  uint64_t number(const std::string& header) const {
    if (static_cast<unsigned char>(header[124]) & 0x80) {  // GNU: of more than 8 GB, in binary
      uint64_t size = 0;
      for (int i = 128; i < 136; ++i) size = size << 8 | static_cast<unsigned char>(header[i]);
      return size;
    }
    uint64_t size = 0;
    for (const auto c : header.substr(124, 12)) {
      if (c == ' ' || c == '\0') continue;
      if (c < '0' || c > '7') fail_damaged();
      size = size << 3 | static_cast<uint64_t>(c - '0');
    }
    return size;
  }

  fs::path path_;
  std::unique_ptr<gzFile_s, int (*)(gzFile)> file_;
};

}  // namespace

bool can_look_into(const fs::path& file) {
  constexpr const char* kEndings[] = {".zip", ".tar", ".tar.gz", ".tgz"};
  const auto name = lower(file.filename().string());
  return std::any_of(std::begin(kEndings), std::end(kEndings), [&](const char* end) { return name.ends_with(end); });
}

ArchiveEntries look_into(const fs::path& archive, bool (*wanted)(const std::string& name)) {
  if (!lower(archive.filename().string()).ends_with(".zip")) return Tar(archive).read(wanted);
  try {
    return of_zip(archive, wanted);
  } catch (const Error& e) {  // of a model's archive it would be the model
    throw Error(Kind::data, e.what());
  }
}

}  // namespace graft::select
