#include "cli/cache.h"

#include "graft/core/error.h"
#include "graft/features/cache.h"
#include "graft/io/file.h"

namespace graft::cli {
namespace {

using features::StoreEntry;

std::string described(const StoreEntry& entry) {
  if (entry.made_of.is_null()) return entry.damage;
  const auto text = [&](const char* key) { return entry.made_of.value(key, std::string("?")); };
  auto line = fmt::format("{}, {} before {} ({} of {}), {} examples, {}", text("source"), text("chain"), text("block"),
                          text("boundary"), text("blocks"), text("examples"), text("precision"));
  return entry.damage.empty() ? line : line + "; DAMAGED: " + entry.damage;
}

Json row_of(const StoreEntry& entry) {
  return {{"file", entry.file.string()},
          {"bytes", entry.bytes},
          {"idle_days", entry.idle_days},
          {"made_of", entry.made_of},
          {"damage", entry.damage.empty() ? Json() : Json(entry.damage)}};
}

void print(const std::vector<StoreEntry>& entries, const std::string& what, bool json) {
  if (json) {
    Json rows = Json::array();
    for (const auto& entry : entries) rows.push_back(row_of(entry));
    fmt::print("{}\n", Json{{what, rows}}.dump());
    return;
  }
  uint64_t total = 0;
  for (const auto& entry : entries) {
    total += entry.bytes;
    fmt::print("{}  {:9.1f} MB  {:6.1f} days idle  {}\n", entry.file.stem().string().substr(0, 8), entry.bytes / 1e6,
               entry.idle_days, described(entry));
  }
  fmt::print("{} {}, {:.1f} MB\n", entries.size(), what, total / 1e6);
}

}  // namespace

CLI::App& add_cache_command(CLI::App& app, CacheArguments& a) {
  auto& cache = *app.add_subcommand("cache", "the stored activations of a run, or of a folder that runs share");
  cache.require_subcommand(1);
  auto& list = *cache.add_subcommand("list", "what is stored, most recently used first");
  auto& verify = *cache.add_subcommand("verify", "read every byte and compare it with what was written");
  auto& prune = *cache.add_subcommand("prune", "remove stores; without a rule, all of them");
  for (auto* command : {&list, &verify, &prune})
    command->add_option("folder", a.folder, "a run's folder, or the recipe's features.folder")->required();
  prune.add_option("--older-than", a.older_than, "days without use")->check(CLI::NonNegativeNumber);
  prune.add_option("--max-gb", a.max_gb, "the least recently used go until the rest is no larger")
      ->check(CLI::NonNegativeNumber);
  prune.add_flag("--damaged", a.damaged, "those that verify would name");
  prune.add_flag("--dry-run", a.dry_run, "name them and remove nothing");
  return cache;
}

int cache_command(const CLI::App& command, const CacheArguments& a, bool json) {
  const auto what = command.get_subcommands().front()->get_name();
  const auto entries = features::stores_in(a.folder, what == "verify" || a.damaged);
  if (what != "prune") {
    print(entries, "stores", json);
    const bool sound = std::all_of(entries.begin(), entries.end(), [](const auto& e) { return e.damage.empty(); });
    return what == "list" || sound ? 0 : static_cast<int>(Kind::data);
  }
  features::PruneRules rules{.damaged = a.damaged};
  if (a.older_than >= 0) rules.idle_days = a.older_than;
  if (a.max_gb >= 0) rules.max_bytes = static_cast<uint64_t>(a.max_gb * 1e9);
  if (!rules.damaged && !rules.idle_days && !rules.max_bytes) rules.max_bytes = 0;
  const auto gone = features::to_prune(entries, rules);
  if (!a.dry_run)
    for (const auto& entry : gone) io::remove_all(entry.file);
  print(gone, a.dry_run ? "stores would go" : "stores removed", json);
  return 0;
}

}  // namespace graft::cli
