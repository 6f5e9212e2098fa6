#include "graft/run/find_source.h"

#include "graft/core/error.h"
#include "graft/hub/http.h"
#include "graft/select/fetch.h"

namespace graft::run {
namespace {

/// One slash and nothing that only a path has ("./x", "/x", "a/b/c").
bool may_be_on_the_hub(const std::string& source) {
  const auto id = source.substr(0, source.find('@'));
  return id.find('/') != std::string::npos && hub::is_repository_id(id);
}

std::string told(const std::string& source, const Error& e) {
  return fmt::format("there is no folder {} here; as a source by name: {}", source, e.what());
}

}  // namespace

FoundSource find_source(const std::string& source, const std::string& list, report::Progress& progress, bool ask) {
  std::error_code ignored;
  if (std::filesystem::exists(source, ignored) || !may_be_on_the_hub(source)) {
    auto folder = std::filesystem::path(source);
    auto name = folder.filename().empty() ? folder.parent_path().filename() : folder.filename();
    return {folder, name.string(), source};
  }
  const auto settings = hub::Settings::from_environment();
  auto lists = select::user_catalogues();
  if (!list.empty()) {
    GRAFT_CHECK(usage, std::filesystem::exists(list), "sources: there is no file {}. Correct its path.", list);
    lists.push_back(list);
  }
  const auto rows = select::catalogue(lists);
  auto found = select::local_source(settings, source, rows);
  try {
    if (!found && !ask) throw hub::Unreachable("it is not on this machine, and nobody answers");
    if (!found) found = select::fetch_source(settings, source, rows, {}, progress);
  } catch (const hub::Unreachable& e) {
    throw hub::Unreachable(told(source, e));
  } catch (const Error& e) {
    throw Error(e.kind, told(source, e));
  }
  return {found->folder, found->id, found->pinned};
}

}  // namespace graft::run
