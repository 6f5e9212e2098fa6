// A temporary folder becomes the checkpoint by one rename; removal begins with a rename back to a temporary name.
#include "graft/io/commit.h"

#include "graft/core/error.h"
#include "graft/core/hash.h"
#include "graft/io/safetensors.h"

namespace graft::io {
namespace {

constexpr const char* manifest_name = "manifest.json";
constexpr const char* marker_name = "COMMITTED";

std::string folder_name(uint64_t index) { return fmt::format("{:06}", index); }

/// The committed names in `folder` by index; others are no checkpoints.
std::map<uint64_t, fs::path> numbered(const fs::path& folder) {
  std::map<uint64_t, fs::path> found;
  std::error_code unreadable;
  for (const auto& entry : fs::directory_iterator(folder, unreadable)) {
    const auto name = entry.path().filename().string();
    const bool is_number =
        name.size() >= 6 && name.size() <= 18 && name.find_first_not_of("0123456789") == std::string::npos;
    if (is_number && entry.is_directory()) found[std::stoull(name)] = entry.path();
  }
  return found;
}

std::string write_content(const fs::path& path, const Content& content) {
  if (const auto* tensors = std::get_if<TensorMap>(&content)) return write_safetensors(path, *tensors);
  const auto& bytes = std::get<std::string>(content);
  write_file(path, bytes);
  return sha256(bytes);
}

void check_file(const fs::path& path, const Json& expected) {
  GRAFT_CHECK(disk, fs::exists(path), "{}: missing", path.string());
  const MappedFile file(path, Kind::disk);
  const auto size = expected.at("size").get<uint64_t>();
  GRAFT_CHECK(disk, file.bytes().size() == size, "{}: expected {} bytes, found {}", path.string(), size,
              file.bytes().size());
  const auto hash = expected.at("sha256").get<std::string>();
  GRAFT_CHECK(disk, sha256(file.bytes()) == hash, "{}: its content changed since it was written (SHA-256 is not {})",
              path.string(), hash);
}

CommittedFolder read_committed(uint64_t index, const fs::path& path) {
  GRAFT_CHECK(disk, fs::exists(path / marker_name), "{}: the marker {} is missing", path.string(), marker_name);
  const auto marker = std::string(MappedFile(path / marker_name, Kind::disk).bytes());
  const auto text = std::string(MappedFile(path / manifest_name, Kind::disk).bytes());
  GRAFT_CHECK(disk, marker == sha256(text), "{}: its content changed since it was written",
              (path / manifest_name).string());
  const auto manifest = Json::parse(text);
  for (const auto& item : manifest.at("files").items()) check_file(path / item.key(), item.value());
  return {index, path, manifest.at("state")};
}

}  // namespace

fs::path CommittedFolders::write(uint64_t index, const std::map<std::string, Content>& files, const Json& state) {
  const auto target = folder_ / folder_name(index);
  const auto temporary = temporary_beside(target);
  make_folder(folder_);
  io::remove_all(temporary);
  make_folder(temporary);
  try {
    Json manifest{{"index", index}, {"state", state}, {"files", Json::object()}};
    for (const auto& [name, content] : files) {
      GRAFT_ASSERT(name != manifest_name && name != marker_name && name.find('/') == std::string::npos,
                   "a file named {}", name);
      const auto hash = write_content(temporary / name, content);
      manifest["files"][name] = {{"size", fs::file_size(temporary / name)}, {"sha256", hash}};
    }
    const auto text = manifest.dump(2) + "\n";
    write_file(temporary / manifest_name, text);
    write_file(temporary / marker_name, sha256(text));
    if (fs::exists(target)) io::remove_all(target);
    rename_folder(temporary, target);
  } catch (...) {
    std::error_code ignored;
    fs::remove_all(temporary, ignored);  // past the seam: the first failure is the one to tell
    throw;
  }
  remove_older(index);
  return target;
}

CommittedFolders::Latest CommittedFolders::latest() const {
  Latest latest;
  const auto folders = numbered(folder_);
  for (auto folder = folders.rbegin(); folder != folders.rend(); ++folder) {
    try {
      latest.found = read_committed(folder->first, folder->second);
      return latest;
    } catch (const Error& e) {
      latest.skipped.push_back(
          fmt::format("checkpoint {} is not complete and is skipped: {}", folder_name(folder->first), e.what()));
    } catch (const Json::exception& e) {
      latest.skipped.push_back(fmt::format("checkpoint {} is not complete and is skipped: its manifest is damaged ({})",
                                           folder_name(folder->first), e.what()));
    }
  }
  return latest;
}

void CommittedFolders::sweep() { sweep_temporaries(folder_); }

void CommittedFolders::remove_older(uint64_t newest) {
  auto folders = numbered(folder_);
  folders.erase(folders.upper_bound(newest), folders.end());
  while (folders.size() > keep_) {
    const auto& oldest = folders.begin()->second;
    const auto aside = temporary_beside(oldest);
    io::remove_all(aside);
    rename_folder(oldest, aside);
    io::remove_all(aside);
    folders.erase(folders.begin());
  }
}

}  // namespace graft::io
