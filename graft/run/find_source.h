// What a recipe calls its source: a folder that is there, or ORG/NAME on the hub, taken from the cache or fetched.
#pragma once

#include <filesystem>
#include <string>

#include "graft/report/progress.h"

namespace graft::run {

struct FoundSource {
  std::filesystem::path folder;
  std::string name;    // for people and model cards
  std::string pinned;  // means the same files again, whatever happens to a branch: ORG/NAME@COMMIT, or the folder
};

/// ORG/NAME and ORG/NAME@REVISION are names on the hub when no such folder exists. A complete snapshot of the cache is
/// taken without asking anybody (`graft pull` refreshes it). Throws as hub::pull() does.
/// `list`: a file of sources of one's own besides that of the configuration folder; "" for none. `ask`: false where it is
/// known that nobody answers; then what is not here is hub::Unreachable at once.
FoundSource find_source(const std::string& source, const std::string& list, report::Progress& progress,
                        bool ask = true);

}  // namespace graft::run
