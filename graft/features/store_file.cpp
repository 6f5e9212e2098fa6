#include "graft/features/store_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <xxhash.h>

#include <algorithm>
#include <cstring>
#include <ctime>

#include "graft/core/error.h"

namespace graft::features {
namespace {

template <class T>
std::vector<T> numbers(const io::TensorView& view) {
  std::vector<T> values(view.shape.empty() ? 0 : view.shape[0]);
  std::memcpy(values.data(), view.data, values.size() * sizeof(T));
  return values;
}

}  // namespace

uint64_t checksum(std::string_view bytes) { return XXH3_64bits(bytes.data(), bytes.size()); }

StoreFile::StoreFile(const fs::path& path) : file(io::read_safetensors(path)) {
  const auto expect = [&](bool sound) {
    GRAFT_CHECK(data, sound, "{}: is no store of activations, or a damaged one. Remove it; graft makes it again.",
                path.string());
  };
  const auto column = [&](const std::string& name) -> const io::TensorView& {
    const auto found = file.tensors.find(name);
    expect(found != file.tensors.end() && found->second.dtype == io::DType::i64 && found->second.shape.size() == 1);
    return found->second;
  };
  for (const auto& [name, view] : file.tensors) {
    if (name.ends_with(".starts") || name.ends_with(".checks")) continue;
    Part part;
    part.view = &view;
    part.starts = numbers<int64_t>(column(name + ".starts"));
    part.checks = numbers<uint64_t>(column(name + ".checks"));
    expect(!view.shape.empty() && part.starts.size() == part.checks.size() + 1 && part.starts.front() == 0 &&
           std::is_sorted(part.starts.begin(), part.starts.end()) && part.starts.back() == view.shape[0] &&
           (parts.empty() || parts.begin()->second.starts.size() == part.starts.size()));
    part.row_bytes = io::element_size(view.dtype);
    for (size_t i = 1; i < view.shape.size(); ++i) part.row_bytes *= view.shape[i];
    parts[name] = std::move(part);
  }
  expect(parts.contains("hidden"));
}

std::optional<std::string> StoreFile::damage() const {
  for (const auto& [name, part] : parts)
    for (int64_t i = 0; i < examples(); ++i)
      if (checksum(part.rows(i)) != part.checks[i]) return fmt::format("{} of example {}", name, i);
  return std::nullopt;
}

void mark_used(const fs::path& store) {
  const timespec times[2] = {{0, UTIME_NOW}, {0, UTIME_OMIT}};
  ::utimensat(AT_FDCWD, store.c_str(), times, 0);  // on a read-only folder it stays as it was
}

double days_unused(const fs::path& store) {
  struct stat status {};
  if (::stat(store.c_str(), &status) != 0) return 0;
  return std::max(0.0, std::difftime(std::time(nullptr), std::max(status.st_atime, status.st_mtime)) / 86400);
}

}  // namespace graft::features
