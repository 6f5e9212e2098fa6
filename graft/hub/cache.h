// The cache on disk, in the layout of huggingface_hub, shared with it in both directions:
//   models--ORG--NAME/{blobs/<hash>, refs/<revision>, snapshots/<commit>/<file> -> ../../blobs/<hash>, trees/<commit>.json}
//   .locks/models--ORG--NAME/<hash>.lock    (flock)
// A file on its way is blobs/<hash>.<owner>.incomplete. The lock keeps processes apart, and where a file system's locks
// are void, the owner in the name does: nobody writes to a file that carries another's mark.
#pragma once

#include <functional>
#include <optional>
#include <vector>

#include "graft/hub/settings.h"

namespace graft::hub {

struct RemoteFile {
  std::string path;  // in the repository
  uint64_t size = 0;
  std::string blob;  // the hash that names its content: SHA-256 of a large file, else git's SHA-1
};

class Repository {
 public:
  /// Nothing is read or made yet. `id` is well formed.
  Repository(const Settings& settings, const std::string& id);

  fs::path snapshot(const std::string& commit) const { return folder_ / "snapshots" / commit; }
  fs::path blob(const std::string& name) const { return folder_ / "blobs" / name; }
  fs::path lock(const std::string& name) const;

  /// The commit that `revision` stood for when it was last asked; a full commit is itself. "" when it is not known.
  std::string commit_of(const std::string& revision) const;
  void remember(const std::string& revision, const std::string& commit) const;

  /// All files of a commit, as the hub listed them.
  std::optional<std::vector<RemoteFile>> tree(const std::string& commit) const;
  /// `listing`: the hub's own answer (path, size, oid, lfs, xetHash of each file).
  void remember_tree(const std::string& commit, const std::string& listing) const;

  /// snapshots/<commit>/<path> becomes a relative link to the blob.
  void link(const std::string& commit, const RemoteFile& file) const;

 private:
  fs::path cache_, folder_;
};

/// "name" or "org/name" of letters, digits, ".", "_", "-", as the hub allows.
bool is_repository_id(const std::string& id);
/// Throws Kind::usage with what is wrong.
void check_repository_id(const std::string& id);
/// 40 lower-case hexadecimal digits.
bool is_commit(const std::string& revision);
/// A path that stays in its folder: no "..", no empty part, not absolute.
bool is_inner_path(const std::string& path);
/// The hub's listing (a JSON array of the tree endpoint) as files; throws Kind::network for one that is none.
std::vector<RemoteFile> read_listing(const std::string& listing, const std::string& where);

/// Every model of the cache that has a snapshot: "org/name".
std::vector<std::string> cached_ids(const Settings& settings);

/// An exclusive flock; the file stays. Waits, asking `waiting` a few times a second (it may throw).
class FileLock {
 public:
  FileLock(const fs::path& path, const std::function<void()>& waiting);
  ~FileLock();
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;

 private:
  int descriptor_ = -1;
};

/// This process's own unfinished file for `blob`. What a dead process left of it is taken over by renaming, which only
/// one can do; a living one's is left alone. The folder must exist.
fs::path claim_partial(const fs::path& blob);

}  // namespace graft::hub
