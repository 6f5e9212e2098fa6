// tests/hub/hub_server.py as an object: a hub on the loopback that breaks on request.
#pragma once

#include <map>
#include <vector>

#include "graft/core/json.h"
#include "graft/hub/settings.h"
#include "tests/fixtures.h"

namespace graft::tests {

class HubServer {
 public:
  HubServer();
  ~HubServer();
  HubServer(const HubServer&) = delete;

  /// Files by path; those of `large` are named by SHA-256, the others by git's SHA-1. Revisions main and v1.
  void add(const std::string& id, const std::map<std::string, std::string>& files, const Json& more = Json::object());
  /// Takes the place of all faults before it; see hub_server.py.
  void fault(const Json& faults);
  /// A file at url("files/NAME").
  void add_file(const std::string& name, const std::string& content);
  std::string url(const std::string& path) const;
  int other_port() const { return ports_[1]; }

  /// Requests so far whose path contains `part`: method, path, range, authorization, port.
  std::vector<Json> requests(const std::string& part = "") const;

  /// A cache in `home` with this endpoint, without a token, whose pauses are short.
  hub::Settings settings(const fs::path& home) const;

  static const std::string commit;  // of main

 private:
  void write() const;
  Scratch folder_;
  Json hub_;
  pid_t process_ = 0;
  int input_ = -1;
  std::vector<int> ports_;
};

/// `size` bytes that look random and are the same for the same seed.
std::string noise(size_t size, uint64_t seed);

}  // namespace graft::tests
