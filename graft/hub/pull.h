// From a model's name to a complete folder in the cache: asks the hub, downloads what is missing, checks every byte.
#pragma once

#include "graft/hub/cache.h"
#include "graft/report/progress.h"

namespace graft::hub {

struct Wish {
  std::string id;                  // ORG/NAME
  std::string revision = "main";   // branch, tag or commit
  std::vector<std::string> files;  // besides what graft takes by itself: names or patterns
};
/// "ORG/NAME@REVISION" or "ORG/NAME". Throws Kind::usage for what is neither.
Wish parse_wish(const std::string& text);

struct Pulled {
  std::string id, revision, commit;
  fs::path folder;                // snapshots/<commit>
  std::vector<RemoteFile> files;  // in it, of those that were asked for; empty when the listing is not known
  uint64_t downloaded = 0;        // bytes that came over the network now
};

/// The complete snapshot that the cache holds for the wish, without any request.
std::optional<Pulled> cached(const Settings& settings, const Wish& wish);

/// "There are ORG/NAME, ..." or that no model is in the cache, for messages.
std::string whats_here(const Settings& settings);

/// Throws Unreachable (Kind::network) when there is no connection, or none is allowed, and the cache does not hold the
/// wish, naming what it holds. Throws Kind::network: a repository that is missing, private or gated (with what to do),
/// wrong sizes or hashes; Kind::disk: less free space than the download needs; Interrupted: what arrived stays for the next
/// call.
/// Without a connection a complete snapshot of the cache is good enough, with a note.
Pulled pull(const Settings& settings, const Wish& wish, report::Progress& progress);

/// A file by URL with all that pull() does for a file: continued, checked. `sha256`: "" when it is not known.
/// Returns the SHA-256 of what is at `target` now. `progress_name` is shown.
std::string fetch_url(const Settings& settings, const std::string& url, const std::string& sha256,
                      const fs::path& target, report::Progress& progress);

}  // namespace graft::hub
