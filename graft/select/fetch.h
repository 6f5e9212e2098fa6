// A source by its name, wherever it is from: a repository of the hub, a file or zip archive of a release, a folder of
// one's own. The catalogue tells which, and which files and revision.
#pragma once

#include "graft/hub/pull.h"
#include "graft/select/catalogue.h"

namespace graft::select {

struct FetchedSource {
  std::string id;
  std::string pinned;  // the same files by name: ORG/NAME@COMMIT on the hub, else the id
  fs::path folder;
  std::string revision, commit;               // of the hub
  std::vector<hub::RemoteFile> files;         // of the hub
  std::map<std::string, std::string> hashes;  // of files by URL: what the SHA-256 is, where none is published
  uint64_t downloaded = 0;
};

/// `name`: ORG/NAME, or ORG/NAME@REVISION on the hub. `rows`: the catalogue; a name that it does not have is one of the
/// hub. `files`: further ones, by name or pattern. Files by URL lie in HF_HOME/graft/ORG--NAME.
/// Throws as hub::pull() does, Kind::usage for an empty name, Kind::model for an archive without the expected files.
FetchedSource fetch_source(const hub::Settings& settings, const std::string& name,
                           const std::vector<CatalogueRow>& rows, const std::vector<std::string>& files,
                           report::Progress& progress);

/// The same from this machine alone, without any request; nothing when it is not here completely.
std::optional<FetchedSource> local_source(const hub::Settings& settings, const std::string& name,
                                          const std::vector<CatalogueRow>& rows);

}  // namespace graft::select
