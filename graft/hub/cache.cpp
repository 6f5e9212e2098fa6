#include "graft/hub/cache.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <fstream>
#include <thread>

#include "graft/core/hash.h"
#include "graft/core/json.h"
#include "graft/core/text.h"
#include "graft/hub/content_hash.h"
#include "graft/io/file.h"

namespace graft::hub {
namespace {

constexpr auto suffix = ".incomplete";

std::string folder_name(const std::string& id) {
  std::string name = "models--" + id;
  if (const auto slash = name.find('/'); slash != std::string::npos) name.replace(slash, 1, "--");
  return name;
}

/// When the process began, in ticks since boot, so that a reused process id is not taken for the old owner. "" for none.
std::string start_of(pid_t process) {
  std::ifstream file(fmt::format("/proc/{}/stat", process));
  std::string text;
  std::getline(file, text);
  const auto name_end = text.rfind(')');
  if (name_end == std::string::npos) return "";
  std::string field;
  auto place = name_end + 1;
  for (int i = 3; i <= 22 && place < text.size(); ++i) {  // field 3 follows the name
    const auto begin = text.find_first_not_of(' ', place);
    place = std::min(text.find(' ', begin), text.size());
    field = text.substr(begin, place - begin);
  }
  return field;
}

std::string machine() {
  char name[256] = "";
  gethostname(name, sizeof name - 1);
  return sha256(name).substr(0, 8);
}

std::string own_mark() { return fmt::format("{}-{}-{}", machine(), ::getpid(), start_of(::getpid())); }

enum class Owner { alive, dead, unknown };

Owner owner_of(const std::string& mark) {
  const auto first = mark.find('-'), second = mark.find('-', first + 1);
  if (first == std::string::npos || second == std::string::npos || mark.substr(0, first) != machine())
    return Owner::unknown;
  const auto process = static_cast<pid_t>(std::atol(mark.c_str() + first + 1));
  if (process <= 0) return Owner::unknown;
  if (::kill(process, 0) < 0 && errno == ESRCH) return Owner::dead;
  return start_of(process) == mark.substr(second + 1) ? Owner::alive : Owner::dead;
}

bool stands_still(const fs::path& path) {
  std::error_code unreadable;
  const auto written = fs::last_write_time(path, unreadable);
  return !unreadable && fs::file_time_type::clock::now() - written > std::chrono::minutes(10);
}

}  // namespace

Repository::Repository(const Settings& settings, const std::string& id)
    : cache_(settings.cache), folder_(settings.cache / folder_name(id)) {}

fs::path Repository::lock(const std::string& name) const {
  return cache_ / ".locks" / folder_.filename() / (name + ".lock");
}

std::string Repository::commit_of(const std::string& revision) const {
  if (is_commit(revision)) return revision;
  const auto file = folder_ / "refs" / revision;
  std::error_code unreadable;
  if (!is_inner_path(revision) || !fs::is_regular_file(file, unreadable)) return "";
  const std::string commit(trimmed(io::read_file(file)));
  return is_commit(commit) ? commit : "";
}

void Repository::remember(const std::string& revision, const std::string& commit) const {
  if (revision == commit || !is_inner_path(revision) || commit_of(revision) == commit) return;
  const auto file = folder_ / "refs" / revision;
  io::make_folder(file.parent_path());
  io::write_file(file, commit);
}

std::optional<std::vector<RemoteFile>> Repository::tree(const std::string& commit) const {
  const auto file = folder_ / "trees" / (commit + ".json");
  std::error_code unreadable;
  if (!fs::is_regular_file(file, unreadable)) return std::nullopt;
  const auto json = Json::parse(io::read_file(file), nullptr, false);
  if (!json.is_object() || json.value("format_version", 0) != 1 || !json.contains("files") ||
      !json["files"].is_object())
    return std::nullopt;
  std::vector<RemoteFile> files;
  try {
    for (const auto& item : json["files"].items()) {
      const auto& info = item.value();
      RemoteFile entry{item.key(), info.at("size").get<uint64_t>(), info.at("blob_id").get<std::string>()};
      if (info.contains("lfs_sha256")) entry.blob = info["lfs_sha256"].get<std::string>();
      if (!is_inner_path(entry.path) || !is_content_name(entry.blob)) return std::nullopt;
      files.push_back(std::move(entry));
    }
  } catch (const Json::exception&) {
    return std::nullopt;
  }
  return files;
}

void Repository::remember_tree(const std::string& commit, const std::string& listing) const {
  Json files = Json::object();
  for (const auto& entry : Json::parse(listing)) {
    if (entry.value("type", "") != "file") continue;
    Json info{{"size", entry["size"]}, {"blob_id", entry["oid"]}};
    if (entry.contains("lfs") && entry["lfs"].is_object()) {
      info["lfs_sha256"] = entry["lfs"]["oid"];
      info["lfs_size"] = entry["lfs"]["size"];
    }
    if (entry.contains("xetHash") && entry["xetHash"].is_string()) info["xet_hash"] = entry["xetHash"];
    files[entry["path"].get<std::string>()] = info;
  }
  const auto file = folder_ / "trees" / (commit + ".json");
  io::make_folder(file.parent_path());
  io::write_file(file, Json{{"format_version", 1}, {"files", files}}.dump(1));
}

void Repository::link(const std::string& commit, const RemoteFile& file) const {
  const auto place = snapshot(commit) / file.path;
  io::make_folder(place.parent_path());
  const auto target = fs::relative(blob(file.blob), place.parent_path());
  std::error_code ignored;
  if (fs::is_symlink(place, ignored) && fs::read_symlink(place, ignored) == target) return;
  // Beside it first, then renamed: another process that links the same file at the same moment does no harm.
  const auto temporary = io::temporary_beside(place);
  fs::remove(temporary, ignored);
  std::error_code code;
  fs::create_symlink(target, temporary, code);
  GRAFT_CHECK(disk, !code, "{}: cannot make a link there: {}. Choose another cache by HF_HOME.", place.string(),
              code.message());
  io::rename_folder(temporary, place);
}

bool is_repository_id(const std::string& id) {
  const auto good = [](const std::string& part) {
    if (part.empty() || part.size() > 96) return false;
    if (part.find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") !=
        std::string::npos)
      return false;
    const auto edge = std::string(".-");
    return edge.find(part.front()) == std::string::npos && edge.find(part.back()) == std::string::npos &&
           part.find("--") == std::string::npos && part.find("..") == std::string::npos;
  };
  const auto slash = id.find('/');
  if (slash == std::string::npos) return good(id);
  return good(id.substr(0, slash)) && good(id.substr(slash + 1));
}

void check_repository_id(const std::string& id) {
  GRAFT_CHECK(usage, is_repository_id(id),
              "`{}` is not a model's name on the hub. It is ORG/NAME of letters, digits and . _ -, as in "
              "google-bert/bert-base-uncased.",
              id);
}

bool is_commit(const std::string& revision) {
  return revision.size() == 40 && revision.find_first_not_of("0123456789abcdef") == std::string::npos;
}

bool is_inner_path(const std::string& path) {
  if (path.empty() || path.front() == '/' || path.back() == '/' || path.find('\0') != std::string::npos) return false;
  size_t begin = 0;
  while (begin <= path.size()) {
    const auto end = std::min(path.find('/', begin), path.size());
    const auto part = path.substr(begin, end - begin);
    if (part.empty() || part == "." || part == "..") return false;
    begin = end + 1;
  }
  return true;
}

std::vector<RemoteFile> read_listing(const std::string& listing, const std::string& where) {
  const auto broken = [&](const std::string& what) {
    fail(Kind::network, "{}: its listing of files {}. Is HF_ENDPOINT a hub?", where, what);
  };
  const auto json = Json::parse(listing, nullptr, false);
  if (!json.is_array()) broken("is not a JSON list");
  std::vector<RemoteFile> files;
  try {
    for (const auto& entry : json) {
      if (entry.at("type") != "file") continue;
      RemoteFile file{entry.at("path").get<std::string>(), entry.at("size").get<uint64_t>(),
                      entry.at("oid").get<std::string>()};
      if (entry.contains("lfs") && entry["lfs"].is_object()) {
        file.blob = entry["lfs"].at("oid").get<std::string>();
        file.size = entry["lfs"].at("size").get<uint64_t>();
      }
      if (!is_inner_path(file.path)) broken("has a path that leaves its folder");
      if (!is_content_name(file.blob)) broken(fmt::format("has no hash for {}", file.path));
      files.push_back(std::move(file));
    }
  } catch (const Json::exception&) {
    broken("lacks path, size or oid");
  }
  return files;
}

std::vector<std::string> cached_ids(const Settings& settings) {
  std::vector<std::string> ids;
  std::error_code unreadable;
  for (const auto& entry : fs::directory_iterator(settings.cache, unreadable)) {
    auto name = entry.path().filename().string();
    std::error_code ignored;
    if (!name.starts_with("models--") || fs::is_empty(entry.path() / "snapshots", ignored) || ignored) continue;
    name = name.substr(8);
    if (const auto dashes = name.find("--"); dashes != std::string::npos) name.replace(dashes, 2, "/");
    ids.push_back(name);
  }
  std::sort(ids.begin(), ids.end());
  return ids;
}

FileLock::FileLock(const fs::path& path, const std::function<void()>& waiting) {
  io::make_folder(path.parent_path());
  while (true) {
    descriptor_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0664);
    GRAFT_CHECK(disk, descriptor_ >= 0,
                "{}: cannot open it for writing: {}. Make the cache writable or choose another "
                "by HF_HOME.",
                path.string(), std::strerror(errno));
    while (::flock(descriptor_, LOCK_EX | LOCK_NB) < 0) {
      if (errno != EWOULDBLOCK && errno != EINTR) return;  // a file system without locks: the owner's mark must do
      waiting();
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
    // Another program may have removed the file while this one waited; then the lock is on a file without a name.
    struct stat mine {
    }, named{};
    if (::fstat(descriptor_, &mine) == 0 && ::stat(path.c_str(), &named) == 0 && mine.st_ino == named.st_ino) return;
    ::close(descriptor_);
  }
}

FileLock::~FileLock() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

fs::path claim_partial(const fs::path& blob) {
  const auto own = blob.parent_path() / fmt::format("{}.{}{}", blob.filename().string(), own_mark(), suffix);
  std::error_code ignored;
  if (fs::exists(own, ignored)) return own;
  // The longest first: it saves most.
  std::vector<std::pair<uintmax_t, fs::path>> left;
  for (const auto& entry : fs::directory_iterator(blob.parent_path(), ignored)) {
    const auto name = entry.path().filename().string(), head = blob.filename().string() + ".";
    if (!name.starts_with(head) || !name.ends_with(suffix)) continue;
    // "<hash>.incomplete" and "<hash>.<8 digits>.incomplete" are those of huggingface_hub: their owner is not known.
    const auto tail = std::strlen(suffix);
    const auto mark =
        name.size() > head.size() + tail ? name.substr(head.size(), name.size() - head.size() - tail) : "";
    const auto owner = owner_of(mark);
    if (owner == Owner::dead || (owner == Owner::unknown && stands_still(entry.path())))
      left.emplace_back(fs::file_size(entry.path(), ignored), entry.path());
  }
  std::sort(left.rbegin(), left.rend());
  bool claimed = false;
  for (const auto& [size, path] : left) {
    if (claimed) fs::remove(path, ignored);
    else claimed = ::rename(path.c_str(), own.c_str()) == 0;  // false: another process was quicker
  }
  return own;
}

}  // namespace graft::hub
