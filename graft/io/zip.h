// The records of a zip archive, with the zip64 extensions: stored ones as views, as torch.save writes them, and single
// files of a compressed archive unpacked to disk. Format: PKWARE APPNOTE 6.3; deflate by zlib.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "graft/io/file.h"

namespace graft::io {

/// Names and contents, as views into `bytes`. `where` begins every message. Throws Kind::model: damaged or cut off,
/// a compressed or encrypted record.
std::map<std::string, std::string_view> zip_records(std::string_view bytes, const std::string& where);

/// The names of the files in an archive, without folders. Throws Kind::model: damaged or cut off.
std::vector<std::string> zip_names(std::string_view bytes, const std::string& where);

/// The first `most` bytes of the file `name` of the archive (all of a shorter one), unchecked. Throws Kind::model: no such
/// file, damaged, encrypted, another method than store or deflate.
std::string zip_file_start(std::string_view bytes, const std::string& where, const std::string& name, size_t most);

/// Writes the file `name` of the archive to `target`, whatever its own path says; size and CRC-32 are checked.
/// Throws Kind::model: no such file, damaged, encrypted, another method than store or deflate; Kind::disk.
void unpack_zip_file(std::string_view bytes, const std::string& where, const std::string& name, const fs::path& target);

}  // namespace graft::io
