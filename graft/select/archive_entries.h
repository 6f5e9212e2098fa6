// The names in a zip or tar archive of images, and how some of them begin, to find out what they are. Nothing is unpacked.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace graft::select {

struct ArchiveEntries {
  std::vector<std::string> names;  // of files, without hidden ones; at most 20,000
  struct Start {
    std::string name, bytes;
  };
  std::vector<Start> starts;  // the first 64 KB of at most 50 of those that `wanted` names
};

/// By its extension: .zip, .tar, .tar.gz, .tgz. Data may also be in .tar.xz, .tar.bz2 and .tar.zst, which are not looked
/// into here.
bool can_look_into(const std::filesystem::path& file);

/// Throws Kind::data for an archive that is damaged or cut off.
ArchiveEntries look_into(const std::filesystem::path& archive, bool (*wanted)(const std::string& name));

}  // namespace graft::select
