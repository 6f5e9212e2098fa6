#include <iostream>

#include "cli/commands.h"
#include "graft/core/error.h"
#include "graft/core/interrupt.h"
#include "graft/select/fetch.h"

namespace graft::cli {

int pull_command(const PullArguments& a) {
  const auto settings = hub::Settings::from_environment();
  report::Progress progress(a.quiet);
  watch_signals();
  const auto rows = select::catalogue(select::user_catalogues(a.recipe));
  const auto name = a.revision.empty() || a.id.find('@') != std::string::npos ? a.id : a.id + "@" + a.revision;
  const auto row = std::find_if(rows.begin(), rows.end(), [&](const auto& item) { return item.id == a.id; });
  // What its owner asks of those who use it is said before the download.
  if (row != rows.end())
    progress.line(
        fmt::format("{}: licence {}{}", row->id, row->licence, row->verified("licence") ? "" : " (not verified)"));
  const auto source = select::fetch_source(settings, name, rows, a.files, progress);
  if (!a.json) {
    fmt::print("{}\n", source.folder.string());
    return 0;
  }
  Json files = Json::array();
  for (const auto& file : source.files)
    files.push_back({{"path", file.path}, {"size", file.size}, {"hash", file.blob}});
  for (const auto& [path, hash] : source.hashes) files.push_back({{"path", path}, {"hash", hash}});
  std::cout << Json{{"id", source.id},
                    {"revision", source.revision},
                    {"commit", source.commit},
                    {"folder", source.folder.string()},
                    {"downloaded_bytes", source.downloaded},
                    {"files", files}}
                   .dump()
            << "\n";
  return 0;
}

}  // namespace graft::cli
