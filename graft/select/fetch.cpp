#include "graft/select/fetch.h"

#include <algorithm>

#include "graft/core/error.h"
#include "graft/core/hash.h"
#include "graft/core/interrupt.h"
#include "graft/io/file.h"
#include "graft/io/zip.h"

namespace graft::select {
namespace {

/// The rows of a name: a repository may stand in several, with other files each.
std::vector<CatalogueRow> rows_of(const std::string& name, const std::vector<CatalogueRow>& rows) {
  std::vector<CatalogueRow> found;
  const auto id = name.substr(0, name.find('@'));
  std::copy_if(rows.begin(), rows.end(), std::back_inserter(found), [&](const auto& row) { return row.id == id; });
  return found;
}

hub::Wish wish_of(const std::string& name, const std::vector<CatalogueRow>& found) {
  auto wish = hub::parse_wish(name);
  const bool asked = name.find('@') != std::string::npos;
  for (const auto& row : found) {
    if (!asked) wish.revision = row.revision;
    wish.files.insert(wish.files.end(), row.files.begin(), row.files.end());
  }
  return wish;
}

FetchedSource of_hub(const hub::Pulled& pulled) {
  return {pulled.id,
          pulled.id + "@" + pulled.commit,
          pulled.folder,
          pulled.revision,
          pulled.commit,
          pulled.files,
          {},
          pulled.downloaded};
}

fs::path folder_of(const hub::Settings& settings, const CatalogueRow& row) {
  auto name = row.id;
  name.replace(name.find('/'), 1, "--");
  return settings.home / "graft" / name;
}

constexpr const char* kTransform = "transform.json";

bool is_here(const fs::path& folder, const CatalogueRow& row) {
  std::error_code ignored;
  if (!row.transform.is_null() && !fs::exists(folder / kTransform, ignored)) return false;
  return !row.files.empty() && std::all_of(row.files.begin(), row.files.end(), [&](const std::string& file) {
    return fs::exists(folder / fs::path(file).filename(), ignored);
  });
}

/// In whatever folder of the archive they stand.
void unpack(const fs::path& file, const CatalogueRow& row, const fs::path& folder) {
  const io::MappedFile archive(file, Kind::model);
  const auto names = io::zip_names(archive.bytes(), file.string());
  for (const auto& wanted : row.files) {
    const auto found = std::find_if(names.begin(), names.end(), [&](const std::string& entry) {
      return entry == wanted || fs::path(entry).filename() == fs::path(wanted).filename();
    });
    GRAFT_CHECK(model, found != names.end(), "{}: the archive has no {}; it has {}.", row.id, wanted, listed(names));
    io::unpack_zip_file(archive.bytes(), file.string(), *found, folder / fs::path(wanted).filename());
  }
}

FetchedSource of_url(const hub::Settings& settings, const CatalogueRow& row, report::Progress& progress) {
  FetchedSource source{row.id, row.id, folder_of(settings, row), "", "", {}, {}, 0};
  GRAFT_CHECK(usage, !row.files.empty(), "{}: the list of sources does not name the files that its URL gives.", row.id);
  if (is_here(source.folder, row)) return source;
  io::make_folder(source.folder);
  // One process at a time: who waited finds the files of the other, not an archive that is just being removed.
  const hub::FileLock lock(source.folder / "source.lock", stop_if_interrupted);
  if (is_here(source.folder, row)) return source;
  auto weights = row;
  weights.transform = nullptr;
  if (!is_here(source.folder, weights)) {
    const auto name = fs::path(row.files.front()).filename();
    const auto target = source.folder / (row.origin == "zip" ? fs::path("archive.zip") : name);
    const auto megabytes = row.origin == "zip" ? 2 * row.download_mb : row.download_mb;  // the archive and its files
    io::require_space(source.folder, static_cast<uint64_t>(megabytes * 1e6), "the download of " + row.id);
    auto hash = hub::fetch_url(settings, row.url, row.sha256, target, progress);
    std::error_code ignored;
    source.downloaded = fs::file_size(target, ignored);
    if (row.sha256.empty())
      progress.line(fmt::format("note: no hash is published for {}; its SHA-256 is {}", row.url, hash));
    source.hashes[target.filename().string()] = hash;
    if (row.origin == "zip") {
      unpack(target, row, source.folder);
      io::remove_all(target);
    }
  }
  if (!row.transform.is_null()) io::write_file(source.folder / kTransform, row.transform.dump(2) + "\n");
  return source;
}

}  // namespace

FetchedSource fetch_source(const hub::Settings& settings, const std::string& name,
                           const std::vector<CatalogueRow>& rows, const std::vector<std::string>& files,
                           report::Progress& progress) {
  const auto found = rows_of(name, rows);
  if (!found.empty() && found.front().origin == "folder") {
    GRAFT_CHECK(model, fs::is_directory(found.front().url), "{}: {}, where {} says it is, is no folder.", name,
                found.front().url, found.front().from);
    return {name, name, found.front().url, "", "", {}, {}, 0};
  }
  if (!found.empty() && found.front().origin != "hub") return of_url(settings, found.front(), progress);
  auto wish = wish_of(name, found);
  wish.files.insert(wish.files.end(), files.begin(), files.end());
  return of_hub(hub::pull(settings, wish, progress));
}

std::optional<FetchedSource> local_source(const hub::Settings& settings, const std::string& name,
                                          const std::vector<CatalogueRow>& rows) {
  const auto found = rows_of(name, rows);
  if (!found.empty() && found.front().origin == "folder") {
    if (!fs::is_directory(found.front().url)) return std::nullopt;
    return FetchedSource{name, name, found.front().url, "", "", {}, {}, 0};
  }
  if (!found.empty() && found.front().origin != "hub") {
    const auto folder = folder_of(settings, found.front());
    if (!is_here(folder, found.front())) return std::nullopt;
    return FetchedSource{name, name, folder, "", "", {}, {}, 0};
  }
  const auto pulled = hub::cached(settings, wish_of(name, found));
  return pulled ? std::optional(of_hub(*pulled)) : std::nullopt;
}

}  // namespace graft::select
