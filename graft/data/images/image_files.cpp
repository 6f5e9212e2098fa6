#include "graft/data/images/image_files.h"

#include <archive.h>
#include <archive_entry.h>

#include <algorithm>
#include <memory>

#include "graft/core/error.h"
#include "graft/core/text.h"
#include "graft/data/dataset_files.h"
#include "graft/io/file.h"

namespace graft::data {
namespace {

constexpr int64_t kLargestEntry = int64_t{1} << 30;

std::string lower_name(const fs::path& path) { return lower(path.filename().string()); }

bool ends_in(const std::string& name, std::initializer_list<const char*> endings) {
  return std::any_of(endings.begin(), endings.end(), [&](const char* e) { return name.ends_with(e); });
}

bool is_hidden(const fs::path& relative) {
  return std::any_of(relative.begin(), relative.end(),
                     [](const fs::path& part) { return part.string().starts_with('.') || part == "__MACOSX"; });
}

/// The archive that a path goes through; empty when it goes through none.
fs::path archive_of(const fs::path& place) {
  fs::path path;
  for (const auto& part : place) {
    path /= part;
    if (ends_in(lower_name(path), {".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".tar.zst"}) &&
        fs::is_regular_file(path))
      return path;
  }
  return {};
}

struct Close {
  void operator()(archive* a) const { archive_read_free(a); }
};

void check_name(const fs::path& archive, const fs::path& entry) {
  const bool leads_out = entry.is_absolute() || std::find(entry.begin(), entry.end(), fs::path("..")) != entry.end();
  GRAFT_CHECK(data, !leads_out,
              "{}: the entry `{}` leads out of the archive; graft does not read such an archive. Make it again.",
              archive.string(), entry.string());
}

}  // namespace

bool has_image_extension(const fs::path& file) {
  return ends_in(lower_name(file), {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif"});
}

void ImageFiles::open(const fs::path& place) {
  const auto path = archive_of(place);
  if (path.empty() || opened_[path]) return;
  const std::unique_ptr<archive, Close> reader(archive_read_new());
  archive_read_support_filter_all(reader.get());
  archive_read_support_format_zip(reader.get());
  archive_read_support_format_tar(reader.get());
  const auto check = [&](bool good) {
    const auto* reason = archive_error_string(reader.get());
    GRAFT_CHECK(data, good, "{}: the archive is damaged or cut off ({}); make it again.", path.string(),
                reason ? reason : "it ends too early");
  };
  check(archive_read_open_filename(reader.get(), path.c_str(), 1 << 20) == ARCHIVE_OK);
  archive_entry* entry = nullptr;
  for (int result; (result = archive_read_next_header(reader.get(), &entry)) != ARCHIVE_EOF;) {
    check(result >= ARCHIVE_WARN);
    const auto* plain = archive_entry_pathname(entry);
    const char* name = plain ? plain : archive_entry_pathname_utf8(entry);
    check(name != nullptr);
    check_name(path, name);
    const auto relative = fs::path(name).lexically_normal();
    const bool image = has_image_extension(relative);
    if (archive_entry_filetype(entry) != AE_IFREG || is_hidden(relative) || !(image || is_table(relative))) continue;
    std::string content;
    char piece[1 << 16];
    for (la_ssize_t n; (n = archive_read_data(reader.get(), piece, sizeof piece)) != 0;) {
      check(n > 0);
      content.append(piece, n);
      GRAFT_CHECK(data, static_cast<int64_t>(content.size()) <= kLargestEntry,
                  "{}: the entry `{}` is larger than 1 GB; no image or table of images is.", path.string(),
                  relative.string());
    }
    if (!image) {
      tables_[(path / relative).string()] = std::move(content);
      continue;
    }
    entries_[(path / relative).string()] = bytes_.size();
    bytes_.push_back(content);
  }
  opened_[path] = true;
}

bool ImageFiles::is_folder(const fs::path& place) {
  if (fs::is_directory(place)) return true;
  open(place);
  const auto prefix = place.string() + "/";
  const auto next = entries_.lower_bound(prefix);
  return next != entries_.end() && next->first.starts_with(prefix);
}

std::vector<std::string> ImageFiles::list(const fs::path& place) {
  std::vector<std::string> files;
  if (fs::is_directory(place)) {
    const auto options = fs::directory_options::follow_directory_symlink;
    for (const auto& entry : fs::recursive_directory_iterator(place, options)) {
      const auto relative = entry.path().lexically_relative(place);
      if (entry.is_regular_file() && has_image_extension(relative) && !is_hidden(relative))
        files.push_back(relative.generic_string());
    }
  } else {
    open(place);
    const auto prefix = place.string() + "/";
    for (auto next = entries_.lower_bound(prefix); next != entries_.end() && next->first.starts_with(prefix); ++next)
      files.push_back(next->first.substr(prefix.size()));
  }
  std::sort(files.begin(), files.end());
  return files;
}

std::vector<fs::path> ImageFiles::tables(const fs::path& folder) {
  std::vector<fs::path> found;
  if (fs::is_directory(folder)) {
    for (const auto& entry : fs::directory_iterator(folder))
      if (entry.is_regular_file() && is_table(entry.path())) found.push_back(entry.path());
  } else {
    open(folder);
    for (const auto& item : tables_)
      if (fs::path(item.first).parent_path() == folder) found.emplace_back(item.first);
  }
  std::sort(found.begin(), found.end());
  return found;
}

const std::string* ImageFiles::table(const fs::path& name) const {
  const auto found = tables_.find(name.string());
  return found == tables_.end() ? nullptr : &found->second;
}

void ImageFiles::read(const std::string& name, const std::function<void(std::string_view)>& use) const {
  if (const auto entry = entries_.find(name); entry != entries_.end()) return use(bytes_.text(entry->second));
  GRAFT_CHECK(data, fs::is_regular_file(name), "{}: there is no such image; correct the name or remove the row.", name);
  if (fs::file_size(name) == 0) return use({});  // cannot be mapped; the decoder says what is wrong with it
  use(io::MappedFile(name).bytes());
}

}  // namespace graft::data
