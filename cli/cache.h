// `graft cache list|verify|prune FOLDER`: the stores of activations of a run, or of a folder that runs share.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace graft::cli {

struct CacheArguments {
  std::string folder;
  double older_than = -1, max_gb = -1;
  bool damaged = false, dry_run = false;
};

CLI::App& add_cache_command(CLI::App& app, CacheArguments& arguments);
/// The exit code: Kind::data when `verify` finds a damaged store.
int cache_command(const CLI::App& command, const CacheArguments& arguments, bool json);

}  // namespace graft::cli
