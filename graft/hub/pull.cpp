#include "graft/hub/pull.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <set>
#include <thread>

#include "graft/core/hash.h"
#include "graft/core/interrupt.h"
#include "graft/core/json.h"
#include "graft/hub/content_hash.h"
#include "graft/hub/download.h"
#include "graft/hub/http.h"
#include "graft/hub/wanted.h"
#include "graft/io/file.h"

namespace graft::hub {
namespace {

bool interrupted() { return pending_signal() != 0; }

/// An answer of the hub's own API, or the sentence for its refusal.
Response ask(const Settings& settings, const std::string& url, const Wish& wish) {
  try {
    auto answer = send({url, settings.token, 0, {}, interrupted}, settings);
    if (answer.status != 200)
      fail_refused(answer.status, answer.header("x-error-code"), wish.id, wish.revision, settings);
    return answer;
  } catch (const Stopped&) {
    throw Interrupted(pending_signal());
  }
}

std::string ask_commit(const Settings& settings, const Wish& wish) {
  if (is_commit(wish.revision)) return wish.revision;
  const auto url =
      fmt::format("{}/api/models/{}/revision/{}", settings.endpoint, wish.id, encoded(wish.revision, false));
  const auto json = Json::parse(ask(settings, url, wish).body, nullptr, false);
  const auto commit = json.is_object() && json.contains("sha") && json["sha"].is_string()
                          ? json["sha"].get<std::string>()
                          : std::string();
  GRAFT_CHECK(network, is_commit(commit), "{}: {} does not say which commit `{}` is. Is HF_ENDPOINT a hub?", wish.id,
              host_of(settings.endpoint), wish.revision);
  return commit;
}

/// The page after this one, from a Link header; "" for none. Only the hub's own: the token goes with it.
std::string next_page(const Response& answer, const Settings& settings) {
  const auto link = answer.header("link");
  const auto begin = link.find('<'), end = link.find('>');
  if (begin == std::string::npos || end == std::string::npos || link.find("rel=\"next\"") == std::string::npos)
    return "";
  const auto url = link.substr(begin + 1, end - begin - 1);
  return url.starts_with(settings.endpoint + "/") ? url : "";
}

std::vector<RemoteFile> ask_tree(const Settings& settings, const Wish& wish, const std::string& commit,
                                 const Repository& repository) {
  if (auto known = repository.tree(commit)) return *known;
  Json all = Json::array();
  auto url = fmt::format("{}/api/models/{}/tree/{}?recursive=true&expand=false", settings.endpoint, wish.id, commit);
  while (!url.empty()) {
    const auto answer = ask(settings, url, wish);
    const auto page = Json::parse(answer.body, nullptr, false);
    GRAFT_CHECK(network, page.is_array(), "{}: the listing of files from {} is not a JSON list. Is HF_ENDPOINT a hub?",
                wish.id, host_of(settings.endpoint));
    all.insert(all.end(), page.begin(), page.end());
    url = next_page(answer, settings);
  }
  auto files = read_listing(all.dump(), host_of(settings.endpoint));
  repository.remember_tree(commit, all.dump());
  return files;
}

/// Several downloads at a time; this thread draws the progress. The first error stops the others.
class Crew {
 public:
  Crew(const Settings& settings, std::string name, uint64_t total, report::Progress& progress)
      : settings_(settings), name_(std::move(name)), total_(total), progress_(progress) {}

  /// Returns the bytes that came over the network. Throws the first error, or Interrupted.
  uint64_t run(std::vector<Download> wishes, std::vector<std::string>* hashes = nullptr) {
    // Large files first: they decide when all is done.
    std::stable_sort(wishes.begin(), wishes.end(), [](const auto& a, const auto& b) { return a.size > b.size; });
    if (hashes) hashes->resize(wishes.size());
    for (auto& wish : wishes) {
      wish.progress = [this](int64_t bytes) { done_ += bytes; };
      wish.stopped = [this] { return stop_ || interrupted(); };
      wish.announce = [this](uint64_t size) { total_ += size; };
    }
    std::atomic<size_t> next{0}, working{0};
    std::vector<std::thread> threads;
    const auto count = std::min<size_t>(std::max(1, settings_.parallel), wishes.size());
    working = count;
    for (size_t i = 0; i < count; ++i)
      threads.emplace_back([&] {
        for (size_t mine; !stop_ && !interrupted() && (mine = next++) < wishes.size();) {
          try {
            arrived_ += download(wishes[mine], settings_, hashes ? &(*hashes)[mine] : nullptr);
          } catch (...) {
            const std::lock_guard lock(mutex_);
            if (!stop_.exchange(true)) error_ = std::current_exception();
          }
        }
        --working;
      });
    while (working > 0) {
      draw();
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    for (auto& thread : threads) thread.join();
    if (interrupted()) throw Interrupted(pending_signal());
    if (error_) std::rethrow_exception(error_);
    return arrived_;
  }

 private:
  void draw() {
    constexpr int64_t megabyte = 1000 * 1000;
    const auto total = static_cast<int64_t>(total_.load());
    if (total >= megabyte) progress_.step(name_ + ", MB", done_ / megabyte, (total + megabyte - 1) / megabyte);
  }

  const Settings& settings_;
  std::string name_;
  std::atomic<uint64_t> total_;
  report::Progress& progress_;
  std::atomic<int64_t> done_{0};
  std::atomic<uint64_t> arrived_{0};
  std::atomic<bool> stop_{false};
  std::mutex mutex_;
  std::exception_ptr error_;
};

bool is_complete(const Repository& repository, const std::string& commit, const std::vector<RemoteFile>& files) {
  std::error_code ignored;
  return std::all_of(files.begin(), files.end(), [&](const RemoteFile& file) {
    const auto place = repository.snapshot(commit) / file.path;
    return fs::exists(place, ignored) && fs::file_size(place, ignored) == file.size;
  });
}

}  // namespace

Wish parse_wish(const std::string& text) {
  Wish wish;
  const auto at = text.find('@');
  wish.id = text.substr(0, at);
  if (at != std::string::npos) wish.revision = text.substr(at + 1);
  check_repository_id(wish.id);
  GRAFT_CHECK(usage, is_inner_path(wish.revision), "`{}`: expected a branch, tag or commit after @.", text);
  return wish;
}

std::optional<Pulled> cached(const Settings& settings, const Wish& wish) {
  const Repository repository(settings, wish.id);
  const auto commit = repository.commit_of(wish.revision);
  std::error_code ignored;
  if (commit.empty() || !fs::is_directory(repository.snapshot(commit), ignored)) return std::nullopt;
  Pulled pulled{wish.id, wish.revision, commit, repository.snapshot(commit), {}, 0};
  if (const auto tree = repository.tree(commit)) {
    try {
      pulled.files = wanted_files(*tree, wish.files, wish.id);
    } catch (const Error&) {  // a repository without weights, or without the files of the wish
      return std::nullopt;
    }
    if (!is_complete(repository, commit, pulled.files)) return std::nullopt;
    return pulled;
  }
  // By a program that keeps no listing.
  const bool complete = has_weights(pulled.folder) && (fs::exists(pulled.folder / "config.json", ignored) ||
                                                       fs::exists(pulled.folder / "open_clip_config.json", ignored) ||
                                                       fs::exists(pulled.folder / "graft.json", ignored));
  for (const auto& file : wish.files)
    if (!fs::exists(pulled.folder / file, ignored)) return std::nullopt;
  return complete ? std::optional(pulled) : std::nullopt;
}

std::string whats_here(const Settings& settings) {
  const auto ids = cached_ids(settings);
  return ids.empty() ? "No other model is there" : "There are " + listed(ids, 20);
}

Pulled pull(const Settings& settings, const Wish& wish, report::Progress& progress) {
  check_repository_id(wish.id);
  if (settings.offline) {
    if (auto here = cached(settings, wish)) return *here;
    throw Unreachable(
        fmt::format("{} at {}: is not complete in {}, and HF_HUB_OFFLINE forbids to fetch it. {}. Unset HF_HUB_OFFLINE "
                    "to fetch it.",
                    wish.id, wish.revision, settings.cache.string(), whats_here(settings)));
  }
  const Repository repository(settings, wish.id);
  std::string commit;
  std::vector<RemoteFile> all;
  try {
    commit = ask_commit(settings, wish);
    all = ask_tree(settings, wish, commit, repository);
  } catch (const Error& e) {
    const auto here = e.kind == Kind::network ? cached(settings, wish) : std::nullopt;
    if (!here && dynamic_cast<const Unreachable*>(&e))
      throw Unreachable(fmt::format("{} at {}: is not complete in {}, and the hub does not answer. {} {}.", wish.id,
                                    wish.revision, settings.cache.string(), e.what(), whats_here(settings)));
    if (!here) throw;
    progress.line(fmt::format("note: {} The copy in the cache is taken (commit {}).", e.what(), here->commit));
    return *here;
  }
  Pulled pulled{wish.id, wish.revision, commit, repository.snapshot(commit), wanted_files(all, wish.files, wish.id), 0};

  std::vector<Download> missing;
  std::set<std::string> blobs;
  uint64_t bytes = 0;
  std::error_code ignored;
  for (const auto& file : pulled.files) {
    // What a shared snapshot holds already, as a link or, where links were not possible, as a file.
    const auto place = pulled.folder / file.path;
    const auto blob = repository.blob(file.blob);
    if (fs::exists(place, ignored) && !fs::is_symlink(place)) continue;
    if (fs::exists(blob, ignored)) {
      if (fs::file_size(blob, ignored) == file.size) continue;
      progress.line(fmt::format("note: {} of {} was cut off in the cache; it is fetched again", file.path, wish.id));
      io::remove_all(blob);
    }
    if (!blobs.insert(file.blob).second) continue;
    const auto url = fmt::format("{}/{}/resolve/{}/{}", settings.endpoint, wish.id, commit, encoded(file.path, true));
    missing.push_back({url,
                       settings.token,
                       fmt::format("{} of {}", file.path, wish.id),
                       file.blob,
                       file.size,
                       repository.blob(file.blob),
                       repository.lock(file.blob),
                       {},
                       {},
                       {},
                       wish.id,
                       wish.revision});
    bytes += file.size;
  }
  if (!missing.empty()) {
    constexpr uint64_t room = 8 << 20;
    io::make_folder(repository.blob("x").parent_path());
    io::require_space(settings.cache, bytes + room, fmt::format("the download of {}", wish.id));
    if (!fs::exists(settings.cache / "CACHEDIR.TAG", ignored))  // backups leave it out: https://bford.info/cachedir
      io::write_file(settings.cache / "CACHEDIR.TAG", "Signature: 8a477f597d28d172789f06886806bc55\n");
    progress.line(fmt::format("{} at {}: {} {}, {:.1f} MB from {}", wish.id, wish.revision, missing.size(),
                              missing.size() == 1 ? "file" : "files", static_cast<double>(bytes) / 1e6,
                              host_of(settings.endpoint)));
    pulled.downloaded = Crew(settings, wish.id, bytes, progress).run(std::move(missing));
  }
  for (const auto& file : pulled.files) {
    const auto place = pulled.folder / file.path;
    if (fs::exists(place, ignored) && !fs::is_symlink(place)) continue;
    repository.link(commit, file);
  }
  repository.remember(wish.revision, commit);
  return pulled;
}

std::string fetch_url(const Settings& settings, const std::string& url, const std::string& sha256,
                      const fs::path& target, report::Progress& progress) {
  GRAFT_CHECK(usage, sha256.empty() || (sha256.size() == 64 && is_content_name(sha256)),
              "`{}` is not a SHA-256; expected 64 lower-case hexadecimal digits.", sha256);
  if (settings.offline)
    throw Unreachable(fmt::format("{}: HF_HUB_OFFLINE forbids to fetch it. Unset it.", host_of(url)));
  io::make_folder(target.parent_path());
  const auto what = target.filename().string() + " from " + host_of(url);
  progress.line(what);
  std::vector<std::string> hashes;
  Crew(settings, what, 0, progress)
      .run({{url,
             "",
             what,
             sha256,
             {},
             target,
             target.parent_path() / (target.filename().string() + ".lock"),
             {},
             {},
             {}}},
           &hashes);
  return hashes.front();
}

}  // namespace graft::hub
