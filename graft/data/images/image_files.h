// Where images lie: folders, and tar and zip archives, which look like folders and are never unpacked.
// A name is a path; the entry a/b.png of data.zip is data.zip/a/b.png.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "graft/data/ragged.h"

namespace graft::data {

namespace fs = std::filesystem;

/// By its extension: .jpg .jpeg .png .webp .tif .tiff .bmp .gif in any case.
bool has_image_extension(const fs::path& file);

class ImageFiles {
 public:
  /// A folder, an archive, or a folder in an archive.
  bool is_folder(const fs::path& place);
  /// All files below it with an image's extension, relative, in the order of their bytes; hidden ones are passed over.
  std::vector<std::string> list(const fs::path& place);
  /// Tables (CSV, JSONL) right in a folder, of an archive too, in the order of their bytes.
  std::vector<fs::path> tables(const fs::path& folder);
  /// What a table in an archive that was opened holds; null for other files.
  const std::string* table(const fs::path& name) const;
  /// Hands over the content. Throws Kind::data when there is no such file or entry. Archives must have been opened by
  /// is_folder(), list() or open() before; then it may be called by several threads.
  void read(const std::string& name, const std::function<void(std::string_view)>& use) const;
  /// Opens the archive that the path goes through, if there is one. Throws Kind::data for a damaged archive and for an
  /// entry whose name leads out of it (../x, /x).
  void open(const fs::path& place);

 private:
  std::map<fs::path, bool> opened_;
  std::map<std::string, int64_t> entries_;     // full name -> row
  std::map<std::string, std::string> tables_;  // full name -> content
  Ragged<char> bytes_;                         // moves to a mapped temporary file when it grows
};

}  // namespace graft::data
