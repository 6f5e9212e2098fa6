// The one seam through which graft writes. Tests make the n-th operation fail or kill the process there.
//
// GRAFT_TEST_FAULT=<what>:<n>[:<substring of path>] with what = kill | enospc | eio counts the operations
// (open, write, fsync, rename, remove, mkdir, truncate) of the process, n from 1.
// With a substring only operations on paths that contain it count. A write that fails or dies leaves half of its bytes.
// what = stop: the process stops itself (SIGSTOP) before the n-th operation and each one after it, for tests of signals.
// what = free: require_space() is told that n bytes are free.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "graft/core/error.h"

namespace graft::io {

namespace fs = std::filesystem;

/// A read-only memory map. Throws the given kind when the file is missing or unreadable. It stays what it was when another
/// file is renamed to its place; a file that is written in place while it is mapped is not for us to read.
class MappedFile {
 public:
  explicit MappedFile(const fs::path& path, Kind kind = Kind::data);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  std::string_view bytes() const { return {data_, size_}; }
  const fs::path& path() const { return path_; }
  /// The bytes once more, to be written in memory: pages are the file's own until they are written, and never reach it.
  /// Each call gives a copy of its own; it lives as long as the pointer, also without this object. Throws the kind.
  std::shared_ptr<char> writable_copy() const;

 private:
  fs::path path_;
  Kind kind_;
  int descriptor_ = -1;
  const char* data_ = nullptr;
  size_t size_ = 0;
};

/// The whole file as a string; Kind::usage with the path when it cannot be read.
std::string read_file(const fs::path& path);

/// Durable and atomic: written to a temporary beside the target, fsync, rename, fsync of the folder.
/// After a kill at any point the target is the old or the new file, never a part. Throws Kind::disk.
void write_file(const fs::path& path, std::string_view bytes);

/// The same for content that is made piece by piece.
class FileWriter {
 public:
  explicit FileWriter(const fs::path& target);
  ~FileWriter();  // without commit(): the temporary is removed, the target is as before
  FileWriter(const FileWriter&) = delete;
  FileWriter& operator=(const FileWriter&) = delete;
  void write(std::string_view bytes);
  /// Lengthens the file to `size` with zeros, for pieces whose places are known before.
  void reserve(uint64_t size);
  /// Overwrites bytes already written (a header that is known last).
  void write_at(uint64_t offset, std::string_view bytes);
  uint64_t size() const { return size_; }
  void commit();

 private:
  fs::path target_, temporary_;
  int descriptor_ = -1;
  uint64_t size_ = 0;
};

/// A file that grows over several processes (a download): opened at its end, or made. Durable after sync().
class GrowingFile {
 public:
  explicit GrowingFile(const fs::path& path);
  ~GrowingFile();
  GrowingFile(const GrowingFile&) = delete;
  GrowingFile& operator=(const GrowingFile&) = delete;
  uint64_t size() const { return size_; }
  /// Kind::disk; what was written before stays.
  void write(std::string_view bytes);
  /// Begins anew.
  void clear();
  void sync();

 private:
  fs::path path_;
  int descriptor_ = -1;
  uint64_t size_ = 0;
};

/// A file that only grows, line by line (the journal). Durable when it returns; when it throws, the file is as before.
void append_durably(const fs::path& path, std::string_view bytes);
/// Cuts the file to `size` bytes.
void truncate_file(const fs::path& path, uint64_t size);
void make_folder(const fs::path& path);
/// Removes a file or folder, all of it; a missing one is no error.
void remove_all(const fs::path& path);
/// ".<target>.<pid>.tmp" in the target's folder: what sweep_temporaries() knows for this process's own.
fs::path temporary_beside(const fs::path& target);
/// Renames a finished folder into place and makes the rename durable.
void rename_folder(const fs::path& from, const fs::path& to);
/// Removes the temporaries that killed processes left in this folder (not those of living processes).
void sweep_temporaries(const fs::path& folder);
/// Throws Kind::disk with both numbers when less than `bytes` are free where `path` is or will be, or when it is not writable.
void require_space(const fs::path& path, uint64_t bytes, std::string_view purpose);

}  // namespace graft::io
