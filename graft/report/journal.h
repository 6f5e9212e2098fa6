// journal.jsonl: what happened in a run, one JSON object a line. Everything but the time fields ("time", "seconds") is a
// function of recipe, data and source, so the journal of a resumed run equals that of the unbroken one.
#pragma once

#include "graft/core/json.h"
#include "graft/io/file.h"

namespace graft::report {

class Journal {
 public:
  explicit Journal(io::fs::path file);
  /// Appends {"event": ..., ..., "time": now}; durable when it returns.
  void write(const std::string& event, Json fields);
  /// Bytes so far: a checkpoint remembers them, and a resumed run cuts the file there.
  uint64_t size() const { return size_; }
  void cut(uint64_t size);
  /// All entries so far.
  std::vector<Json> entries() const;

 private:
  io::fs::path file_;
  uint64_t size_ = 0;
};

/// The entries without their time fields, one a line: for comparing runs.
std::string without_times(const std::vector<Json>& entries);

}  // namespace graft::report
