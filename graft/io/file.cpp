// Every write of graft passes here: temporary file, fsync, rename, fsync of the folder. POSIX.
#include "graft/io/file.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "graft/core/error.h"

namespace graft::io {
namespace {

struct Fault {
  std::string what;
  uint64_t operation = 0;
  std::string substring;
};

Fault parse_fault(const std::string& text) {
  const auto first = text.find(':');
  GRAFT_CHECK(usage, first != std::string::npos,
              "GRAFT_TEST_FAULT: expected kill|enospc|eio|stop|free:<n>[:<part of path>], found {}", text);
  const auto second = text.find(':', first + 1);
  Fault fault;
  fault.what = text.substr(0, first);
  fault.operation = std::strtoull(text.c_str() + first + 1, nullptr, 10);
  if (second != std::string::npos) fault.substring = text.substr(second + 1);
  return fault;
}

enum class Outcome { proceed, die, no_space, io_error };

Outcome next_operation(const fs::path& path) {
  static std::mutex mutex;
  static std::string seen;
  static Fault fault;
  static uint64_t counted = 0;
  const std::lock_guard lock(mutex);
  const char* setting = std::getenv("GRAFT_TEST_FAULT");
  if (!setting) return seen.clear(), Outcome::proceed;
  if (seen != setting) {
    fault = parse_fault(setting);
    seen = setting;
    counted = 0;
  }
  if (fault.what == "free" || path.string().find(fault.substring) == std::string::npos) return Outcome::proceed;
  if (fault.what == "stop") {
    if (++counted >= fault.operation) raise(SIGSTOP);
    return Outcome::proceed;
  }
  if (++counted != fault.operation) return Outcome::proceed;
  if (fault.what == "kill") return Outcome::die;
  return fault.what == "enospc" ? Outcome::no_space : Outcome::io_error;
}

/// The bytes that a test says are free.
std::optional<uint64_t> pretended_free_space() {
  const char* setting = std::getenv("GRAFT_TEST_FAULT");
  if (!setting) return std::nullopt;
  const auto fault = parse_fault(setting);
  return fault.what == "free" ? std::optional(fault.operation) : std::nullopt;
}

std::string advice(int code, const fs::path& path) {
  const auto folder = (path.has_parent_path() ? path.parent_path() : fs::path(".")).string();
  switch (code) {
    case ENOSPC:
    case EDQUOT:
      return fmt::format("free space in {} and run with --resume", folder);
    case EACCES:
    case EPERM:
    case EROFS:
      return fmt::format("make {} writable or choose another folder", folder);
    default:
      return fmt::format("check the disk that holds {} and run with --resume", folder);
  }
}

[[noreturn]] void fail_disk(const char* what, const fs::path& path, int code) {
  fail(Kind::disk, "{}: cannot {}: {}; {}", path.string(), what, std::strerror(code), advice(code, path));
}

/// Runs one system call, or the fault that a test set for it. Returns 0 or the error number.
template <class Call>
int operate(const fs::path& path, Call&& call) {
  switch (next_operation(path)) {
    case Outcome::die:
      raise(SIGKILL);
      return EIO;
    case Outcome::no_space:
      return ENOSPC;
    case Outcome::io_error:
      return EIO;
    case Outcome::proceed:
      break;
  }
  return call() < 0 ? errno : 0;
}

int open_for_writing(const fs::path& path, int flags) {
  int descriptor = -1;
  const int code = operate(path, [&] { return descriptor = ::open(path.c_str(), flags | O_CLOEXEC, 0644); });
  if (code) fail_disk("open it for writing", path, code);
  return descriptor;
}

int write_all(int descriptor, std::string_view bytes, int64_t offset) {
  while (!bytes.empty()) {
    const auto piece = std::min<size_t>(bytes.size(), 1 << 30);
    const auto written =
        offset < 0 ? ::write(descriptor, bytes.data(), piece) : ::pwrite(descriptor, bytes.data(), piece, offset);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return errno;
    bytes.remove_prefix(written);
    if (offset >= 0) offset += written;
  }
  return 0;
}

/// A fault in a write leaves half of the bytes behind, as a full disk or a power cut may.
int write_or_fault(const fs::path& path, int descriptor, std::string_view bytes, int64_t offset) {
  const auto outcome = next_operation(path);
  if (outcome == Outcome::proceed) return write_all(descriptor, bytes, offset);
  write_all(descriptor, bytes.substr(0, bytes.size() / 2), offset);
  if (outcome == Outcome::die) raise(SIGKILL);
  return outcome == Outcome::no_space ? ENOSPC : EIO;
}

fs::path folder_of(const fs::path& path) { return path.has_parent_path() ? path.parent_path() : fs::path("."); }

void sync_folder(const fs::path& folder) {
  const int descriptor = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) fail_disk("open the folder", folder / "", errno);
  const int code = operate(folder, [&] { return ::fsync(descriptor); });
  ::close(descriptor);
  if (code && code != EINVAL) fail_disk("make the folder's entries durable", folder / "", code);
}

/// The process id in ".<target>.<pid>.tmp", or 0.
pid_t owner_of_temporary(const std::string& name) {
  constexpr std::string_view suffix = ".tmp";
  if (name.size() < suffix.size() + 3 || name.front() != '.' || !name.ends_with(suffix)) return 0;
  const auto end = name.size() - suffix.size();
  const auto dot = name.rfind('.', end - 1);
  if (dot == std::string::npos || dot == 0 || dot + 1 == end || end - dot > 10) return 0;
  const auto digits = name.substr(dot + 1, end - dot - 1);
  if (digits.find_first_not_of("0123456789") != std::string::npos) return 0;
  return static_cast<pid_t>(std::atoi(digits.c_str()));
}

void remove_one(const fs::path& path) {
  const int code = operate(path, [&] { return ::remove(path.c_str()); });
  if (code && code != ENOENT) fail_disk("remove it", path, code);
}

fs::path nearest_existing(fs::path path) {
  path = fs::absolute(path);
  std::error_code ignored;
  while (!fs::exists(path, ignored) && path.has_relative_path()) path = path.parent_path();
  return path;
}

}  // namespace

fs::path temporary_beside(const fs::path& target) {
  return folder_of(target) / fmt::format(".{}.{}.tmp", target.filename().string(), ::getpid());
}

MappedFile::MappedFile(const fs::path& path, Kind kind) : path_(path), kind_(kind) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) throw Error(kind, fmt::format("{}: cannot read it: {}", path.string(), std::strerror(errno)));
  struct stat status {};
  const bool known = ::fstat(descriptor, &status) == 0;
  void* address = nullptr;
  int code = known ? 0 : errno;
  if (known && !S_ISREG(status.st_mode)) code = S_ISDIR(status.st_mode) ? EISDIR : EINVAL;
  if (!code && status.st_size > 0) {
    size_ = status.st_size;
    address = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, descriptor, 0);
    if (address == MAP_FAILED) code = errno;
  }
  if (code) {
    ::close(descriptor);
    throw Error(kind, fmt::format("{}: cannot read it: {}", path.string(), std::strerror(code)));
  }
  descriptor_ = descriptor;
  data_ = static_cast<const char*>(address);
}

MappedFile::~MappedFile() {
  if (data_) ::munmap(const_cast<char*>(data_), size_);
  ::close(descriptor_);
}

std::shared_ptr<char> MappedFile::writable_copy() const {
  if (size_ == 0) return nullptr;
  // Not counted against the limit of what may be promised: how much of it will be written is not known.
  auto* address = ::mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, descriptor_, 0);
  if (address == MAP_FAILED)
    throw Error(kind_, fmt::format("{}: cannot map it: {}", path_.string(), std::strerror(errno)));
  return {static_cast<char*>(address), [size = size_](char* bytes) { ::munmap(bytes, size); }};
}

std::string read_file(const fs::path& path) { return std::string(MappedFile(path, Kind::usage).bytes()); }

void write_file(const fs::path& path, std::string_view bytes) {
  FileWriter writer(path);
  writer.write(bytes);
  writer.commit();
}

FileWriter::FileWriter(const fs::path& target) : target_(target), temporary_(temporary_beside(target)) {
  descriptor_ = open_for_writing(temporary_, O_WRONLY | O_CREAT | O_TRUNC);
}

FileWriter::~FileWriter() {
  if (descriptor_ >= 0) ::close(descriptor_);
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void FileWriter::write(std::string_view bytes) {
  if (const int code = write_or_fault(temporary_, descriptor_, bytes, size_)) fail_disk("write it", target_, code);
  size_ += bytes.size();
}

void FileWriter::reserve(uint64_t size) {
  GRAFT_ASSERT(size >= size_, "{} < {}", size, size_);
  if (const int code = operate(temporary_, [&] { return ::ftruncate(descriptor_, static_cast<off_t>(size)); }))
    fail_disk("lengthen it", target_, code);
  size_ = size;
}

void FileWriter::write_at(uint64_t offset, std::string_view bytes) {
  GRAFT_ASSERT(bytes.size() <= size_ && offset <= size_ - bytes.size(), "{} + {} of {}", offset, bytes.size(), size_);
  if (const int code = write_or_fault(temporary_, descriptor_, bytes, offset)) fail_disk("write it", target_, code);
}

void FileWriter::commit() {
  if (const int code = operate(temporary_, [&] { return ::fsync(descriptor_); }))
    fail_disk("make it durable", target_, code);
  const int closed = ::close(std::exchange(descriptor_, -1));
  if (closed < 0) fail_disk("close it", target_, errno);
  const int code = operate(temporary_, [&] { return ::rename(temporary_.c_str(), target_.c_str()); });
  if (code) fail_disk("rename the finished file to it", target_, code);
  temporary_.clear();
  sync_folder(folder_of(target_));
}

GrowingFile::GrowingFile(const fs::path& path) : path_(path) {
  descriptor_ = open_for_writing(path, O_WRONLY | O_CREAT | O_APPEND);
  const auto end = ::lseek(descriptor_, 0, SEEK_END);
  size_ = end > 0 ? static_cast<uint64_t>(end) : 0;
}

GrowingFile::~GrowingFile() { ::close(descriptor_); }

void GrowingFile::write(std::string_view bytes) {
  if (const int code = write_or_fault(path_, descriptor_, bytes, -1))
    fail(Kind::disk, "{}: cannot write it: {}; free space in {} and repeat the command, it goes on from here",
         path_.string(), std::strerror(code), folder_of(path_).string());
  size_ += bytes.size();
}

void GrowingFile::clear() {
  if (const int code = operate(path_, [&] { return ::ftruncate(descriptor_, 0); })) fail_disk("cut it", path_, code);
  size_ = 0;
}

void GrowingFile::sync() {
  if (const int code = operate(path_, [&] { return ::fsync(descriptor_); })) fail_disk("make it durable", path_, code);
}

void append_durably(const fs::path& path, std::string_view bytes) {
  const bool is_new = !fs::exists(path);
  const int descriptor = open_for_writing(path, O_WRONLY | O_CREAT | O_APPEND);
  const auto before = ::lseek(descriptor, 0, SEEK_END);
  int code = write_or_fault(path, descriptor, bytes, -1);
  if (!code) code = operate(path, [&] { return ::fsync(descriptor); });
  if (code && before >= 0) operate(path, [&] { return ::ftruncate(descriptor, before); });
  ::close(descriptor);
  if (code) fail_disk("append to it", path, code);
  if (is_new) sync_folder(folder_of(path));
}

void truncate_file(const fs::path& path, uint64_t size) {
  const int descriptor = open_for_writing(path, O_WRONLY);
  int code = operate(path, [&] { return ::ftruncate(descriptor, size); });
  if (!code) code = operate(path, [&] { return ::fsync(descriptor); });
  ::close(descriptor);
  if (code) fail_disk("cut it", path, code);
}

void make_folder(const fs::path& path) {
  std::error_code ignored;
  if (fs::is_directory(path, ignored)) return;
  if (!path.has_filename()) return make_folder(path.parent_path());
  if (path.has_parent_path()) make_folder(path.parent_path());
  const int code = operate(path, [&] { return ::mkdir(path.c_str(), 0755); });
  if (code && !(code == EEXIST && fs::is_directory(path, ignored))) fail_disk("make the folder", path, code);
  sync_folder(folder_of(path));
}

void remove_all(const fs::path& path) {
  std::error_code unreadable;
  const auto status = fs::symlink_status(path, unreadable);
  if (status.type() == fs::file_type::not_found) return;
  if (fs::is_directory(status)) {
    std::vector<fs::path> entries;
    for (const auto& entry : fs::directory_iterator(path, unreadable)) entries.push_back(entry.path());
    if (unreadable) fail_disk("list the folder", path, unreadable.value());
    for (const auto& entry : entries) io::remove_all(entry);
  }
  remove_one(path);
}

void rename_folder(const fs::path& from, const fs::path& to) {
  const int code = operate(to, [&] { return ::rename(from.c_str(), to.c_str()); });
  if (code) fail_disk("rename the finished folder to it", to, code);
  sync_folder(folder_of(to));
  if (folder_of(from) != folder_of(to)) sync_folder(folder_of(from));
}

void sweep_temporaries(const fs::path& folder) {
  std::vector<fs::path> left;
  std::error_code unreadable;
  for (const auto& entry : fs::directory_iterator(folder, unreadable)) {
    const auto owner = owner_of_temporary(entry.path().filename().string());
    if (owner > 0 && ::kill(owner, 0) < 0 && errno == ESRCH) left.push_back(entry.path());
  }
  for (const auto& path : left) io::remove_all(path);
}

void require_space(const fs::path& path, uint64_t bytes, std::string_view purpose) {
  const auto place = nearest_existing(path);
  if (::access(place.c_str(), W_OK) != 0) {
    fail(Kind::disk, "{}: {} needs to write here, but {} is not writable: {}; choose another folder", path.string(),
         purpose, place.string(), std::strerror(errno));
  }
  struct statvfs status {};
  if (::statvfs(place.c_str(), &status) != 0) fail_disk("ask for its free space", path, errno);
  const auto free = pretended_free_space().value_or(static_cast<uint64_t>(status.f_bavail) * status.f_frsize);
  if (free >= bytes) return;
  constexpr double mebibyte = 1 << 20;
  fail(Kind::disk, "{}: {} needs {:.1f} MiB, {:.1f} MiB are free; free space there or choose another folder",
       path.string(), purpose, bytes / mebibyte, free / mebibyte);
}

}  // namespace graft::io
