// The temporary file is unlinked at once, so it goes away with the process; its blocks are reserved before they are
// mapped, so that a full disk is an error here and not a signal at the first write.
#include "graft/data/ragged.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>

#include "graft/core/error.h"

namespace graft::data {

template <class T>
struct Ragged<T>::Spill {
  int descriptor = -1;
  T* values = nullptr;
  uint64_t capacity = 0;  // bytes
  std::string folder;

  Spill() {
    std::error_code problem;
    folder = std::filesystem::temp_directory_path(problem).string();
    GRAFT_CHECK(disk, !problem, "there is no folder for temporary files: {}; set TMPDIR to one with free space",
                problem.message());
    auto name = folder + "/graft-rows-XXXXXX";
    descriptor = mkstemp(name.data());
    GRAFT_CHECK(disk, descriptor >= 0,
                "{}: no temporary file can be made there: {}; set TMPDIR to a folder with free space", folder,
                std::strerror(errno));
    unlink(name.c_str());
  }
  Spill(const Spill&) = delete;
  Spill& operator=(const Spill&) = delete;
  ~Spill() {
    if (values) munmap(values, capacity);
    close(descriptor);
  }

  void reserve(uint64_t bytes) {
    if (bytes <= capacity) return;
    const uint64_t wanted = std::max({bytes, capacity + capacity / 2, uint64_t{1} << 20});
    const int problem = posix_fallocate(descriptor, 0, static_cast<off_t>(wanted));
    GRAFT_CHECK(disk, problem == 0,
                "{}: {} bytes for rows that do not fit in memory cannot be reserved there: {}; free space, or set "
                "TMPDIR to a folder that has it",
                folder, wanted, std::strerror(problem));
    void* mapped = values ? mremap(values, capacity, wanted, MREMAP_MAYMOVE)
                          : mmap(nullptr, wanted, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    GRAFT_CHECK(memory, mapped != MAP_FAILED,
                "{} bytes of rows cannot be mapped: {}; raise the limit on address space (ulimit -v)", wanted,
                std::strerror(errno));
    values = static_cast<T*>(mapped);
    capacity = wanted;
  }
};

template <class T>
Ragged<T>::Ragged(uint64_t memory_limit) : memory_limit_(memory_limit) {}

template <class T>
void Ragged<T>::push_back(std::span<const T> row) {
  const auto begin = total(), end = begin + row.size();
  if (!spill_ && end * sizeof(T) > memory_limit_) {
    auto spill = std::make_shared<Spill>();
    spill->reserve(end * sizeof(T));
    if (begin) std::memcpy(spill->values, memory_.data(), begin * sizeof(T));
    spill_ = std::move(spill);
    memory_ = {};
  }
  if (spill_) {
    GRAFT_ASSERT(spill_.use_count() == 1, "rows are appended to a copy that shares its file");
    spill_->reserve(end * sizeof(T));
    if (!row.empty()) std::memcpy(spill_->values + begin, row.data(), row.size_bytes());
  } else {
    memory_.insert(memory_.end(), row.begin(), row.end());
  }
  offsets_.push_back(end);
}

template <class T>
std::span<const T> Ragged<T>::operator[](int64_t row) const {
  const T* values = spill_ ? spill_->values : memory_.data();
  return {values + offsets_[row], values + offsets_[row + 1]};
}

template class Ragged<char>;
template class Ragged<int32_t>;

}  // namespace graft::data
