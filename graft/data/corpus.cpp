#include "graft/data/corpus.h"

#include <algorithm>

#include "graft/core/error.h"
#include "graft/core/hash.h"
#include "graft/core/text.h"

namespace graft::data {
namespace {

const std::vector<std::string> kTexts = {".txt", ".jsonl", ".ndjson", ".json", ".csv", ".tsv"};

std::vector<fs::path> files_of(const fs::path& path) {
  GRAFT_CHECK(usage, !path.empty(), "the path of the corpus is missing; name a file or a folder of texts");
  GRAFT_CHECK(data, fs::exists(path), "{}: there is no such file or folder; check the path of the corpus",
              path.string());
  if (!fs::is_directory(path)) return {path};
  std::vector<fs::path> files;
  std::vector<std::string> others;
  for (const auto& entry : fs::directory_iterator(path)) {
    const bool is_text =
        entry.is_regular_file() && std::find(kTexts.begin(), kTexts.end(), entry.path().extension()) != kTexts.end();
    if (is_text) files.push_back(entry.path());
    else others.push_back(entry.path().filename().string());
  }
  std::sort(others.begin(), others.end());
  GRAFT_CHECK(data, !files.empty(), "{}: expected files that end in {}, found {}", path.string(),
              fmt::join(kTexts, ", "), others.empty() ? "none" : listed(others));
  std::sort(files.begin(), files.end());
  return files;
}

std::string text_of(const fs::path& file, const Row& row, const std::string& column) {
  if (!row.cells.contains(column)) {
    std::vector<std::string> columns;
    for (const auto& item : row.cells.items()) columns.push_back(item.key());
    fail_row(
        file, row.number, column,
        fmt::format("there is no such column; the columns are {}; name the one that holds the text", listed(columns)));
  }
  const auto& value = row.cells[column];
  if (!value.is_string())
    fail_row(file, row.number, column, fmt::format("expected text, found {}; put it in quotes", excerpt(value.dump())));
  if (trimmed(value.get_ref<const std::string&>()).empty())
    fail_row(file, row.number, column, "expected text, found none; fill the cell or remove the row");
  return value;
}

}  // namespace

CorpusSummary for_each_document(const CorpusOptions& options, const std::function<void(std::string_view, bool)>& use) {
  GRAFT_CHECK(usage, options.bad_rows == "stop" || options.bad_rows == "skip",
              "bad_rows: expected stop or skip, found `{}`", options.bad_rows);
  GRAFT_CHECK(usage, options.held_out_fraction >= 0 && options.held_out_fraction < 1,
              "held_out_fraction: expected a number from 0 to below 1, found {}", options.held_out_fraction);
  CorpusSummary all;
  for (const auto& file : files_of(options.path)) {
    all.files.push_back(file.string());
    const auto column = file.extension() == ".txt" ? std::string("text") : options.text;
    auto skipped = for_each_row(file, options.bad_rows == "skip" ? BadRows::skip : BadRows::stop, [&](const Row& row) {
      const auto text = text_of(file, row, column);
      const bool held_out = unit_hash(text) < options.held_out_fraction;
      use(text, held_out);
      ++all.documents;
      all.held_out += held_out;
      all.bytes += text.size();
    });
    all.skipped.count += skipped.count;
    for (auto& sentence : skipped.first)
      if (all.skipped.first.size() < 10) all.skipped.first.push_back(std::move(sentence));
  }
  GRAFT_CHECK(data, all.documents > 0, "{}: {}", options.path,
              all.skipped.count ? "no row can be used; the first: " + all.skipped.first.front()
                                : std::string("there are no documents; give a file with text"));
  return all;
}

}  // namespace graft::data
