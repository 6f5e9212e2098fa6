#include "graft/report/journal.h"

#include <fmt/chrono.h>

#include <sstream>

#include "graft/core/error.h"

namespace graft::report {
namespace {

std::string now() { return fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(std::time(nullptr))); }

void drop_times(Json& json) {
  if (json.is_object()) {
    json.erase("time");
    json.erase("seconds");
  }
  for (auto& item : json)
    if (item.is_structured()) drop_times(item);
}

}  // namespace

Journal::Journal(io::fs::path file) : file_(std::move(file)) {
  if (io::fs::exists(file_)) size_ = io::fs::file_size(file_);
}

void Journal::write(const std::string& event, Json fields) {
  Json line{{"event", event}};
  if (fields.is_object()) line.update(fields);
  line["time"] = now();
  const auto text = line.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
  io::append_durably(file_, text);
  size_ += text.size();
}

void Journal::cut(uint64_t size) {
  GRAFT_CHECK(disk, size <= size_,
              "{}: is shorter than its checkpoint remembers; it was changed by hand. Start the run anew.",
              file_.string());
  if (size < size_) io::truncate_file(file_, size);
  size_ = size;
}

std::vector<Json> Journal::entries() const {
  std::vector<Json> entries;
  if (!io::fs::exists(file_)) return entries;
  std::istringstream lines(io::read_file(file_));
  for (std::string line; std::getline(lines, line);)
    if (auto json = Json::parse(line, nullptr, false); !json.is_discarded()) entries.push_back(std::move(json));
  return entries;
}

std::string without_times(const std::vector<Json>& entries) {
  std::string text;
  for (auto entry : entries) {
    drop_times(entry);
    text += entry.dump() + "\n";
  }
  return text;
}

}  // namespace graft::report
