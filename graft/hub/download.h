// One file from the network to the disk: continued where it broke off, checked, then renamed into place.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "graft/hub/settings.h"

namespace graft::hub {

struct Download {
  std::string url, token;
  std::string what;  // "config.json of ORG/NAME" for messages
  std::string name;  // the expected hash: 64 digits SHA-256, 40 git's SHA-1 of a blob, "" when it is not known
  std::optional<uint64_t> size;            // expected; nothing: what the server says. With git's hash it must be known
  fs::path target, lock;                   // where it is going, and the file that keeps other processes away meanwhile
  std::function<void(int64_t)> progress;   // bytes won since the last call; negative when a part had to go
  std::function<void(uint64_t)> announce;  // the size, when only the server knew it; may be empty
  std::function<bool()> stopped;           // true: break off, keep what arrived
  std::string id = {}, revision = {};      // of a repository: what is refused is then explained by its page
};

/// Returns the number of bytes that came over the network; 0 when another process had put the file there.
/// `found_hash`: gets the SHA-256 when the hash was not known. Throws Stopped, Kind::network, Kind::disk.
uint64_t download(const Download& wish, const Settings& settings, std::string* found_hash = nullptr);

/// What the answer of a hub means for the person who asked: gated, missing, no such revision, a token that is refused.
[[noreturn]] void fail_refused(long status, const std::string& code, const std::string& id, const std::string& revision,
                               const Settings& settings);

}  // namespace graft::hub
