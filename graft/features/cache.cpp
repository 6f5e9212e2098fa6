#include "graft/features/cache.h"

#include <algorithm>

#include "graft/core/error.h"
#include "graft/features/store_file.h"

namespace graft::features {
namespace {

bool is_store_name(const fs::path& file) {
  const auto stem = file.stem().string();
  return file.extension() == ".safetensors" && stem.size() == 32 &&
         stem.find_first_not_of("0123456789abcdef") == std::string::npos;
}

StoreEntry entry_of(const fs::path& file, bool verify) {
  StoreEntry entry{.file = file, .bytes = fs::file_size(file), .idle_days = days_unused(file)};
  try {
    const StoreFile store(file);
    entry.made_of = store.file.metadata;
    if (verify) entry.damage = store.damage().value_or("");
  } catch (const Error& error) {
    entry.damage = error.what();
  }
  return entry;
}

}  // namespace

std::vector<StoreEntry> stores_in(const fs::path& given, bool verify) {
  const auto folder = fs::is_directory(given / "features") ? given / "features" : given;
  GRAFT_CHECK(usage, fs::is_directory(folder),
              "{}: there is no such folder. Give a run's folder, or the one that features.folder names in a recipe.",
              given.string());
  std::vector<StoreEntry> entries;
  for (const auto& file : fs::directory_iterator(folder))
    if (file.is_regular_file() && is_store_name(file.path())) entries.push_back(entry_of(file.path(), verify));
  std::sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) {
    return std::pair{a.idle_days, a.file} < std::pair{b.idle_days, b.file};
  });
  return entries;
}

std::vector<StoreEntry> to_prune(const std::vector<StoreEntry>& entries, const PruneRules& rules) {
  std::vector<StoreEntry> out;
  uint64_t kept = 0;
  bool full = false;  // a smaller and older one does not jump the queue
  for (const auto& entry : entries) {
    const bool goes =
        (rules.damaged && !entry.damage.empty()) || (rules.idle_days && entry.idle_days > *rules.idle_days);
    full = full || (!goes && rules.max_bytes && kept + entry.bytes > *rules.max_bytes);
    if (goes || full) out.push_back(entry);
    else kept += entry.bytes;
  }
  return out;
}

}  // namespace graft::features
