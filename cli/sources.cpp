// graft sources: the selection tree as a table, or one row with all its fields and where they are from.
#include <iostream>
#include <optional>

#include "cli/commands.h"
#include "graft/core/error.h"
#include "graft/select/fetch.h"
#include "graft/select/modality.h"

namespace graft::cli {
namespace {

using select::CatalogueRow;

/// A value, marked when nobody verified it.
std::string marked(const CatalogueRow& row, const std::string& field, const std::string& value) {
  return value + (row.verified(field) ? "" : "?");
}

std::string parameters(const CatalogueRow& row) {
  if (row.parameters == 0) return "?";
  const auto millions = static_cast<double>(row.parameters) / 1e6;
  return marked(row, "parameters",
                millions < 1000 ? fmt::format("{:.0f} M", millions) : fmt::format("{:.1f} B", millions / 1000));
}

std::string size(const CatalogueRow& row) {
  if (row.download_mb == 0) return "?";
  return marked(row, "download_mb",
                row.download_mb < 1000 ? fmt::format("{:.0f} MB", row.download_mb)
                                       : fmt::format("{:.1f} GB", row.download_mb / 1000));
}

std::string cut(const std::string& text, size_t length) {
  return text.size() <= length ? text : text.substr(0, length - 3) + "...";
}

void print_row(const CatalogueRow& row, bool here) {
  const auto json = row.json();
  for (const auto& item : json.items()) {
    const auto& value = item.value();
    if (item.key() == "evidence" || value == "" || (value.is_array() && value.empty())) continue;
    const auto found = row.evidence.find(item.key());
    const auto from = found == row.evidence.end() || found->second == "choice" ? ""
                      : found->second == "memory"                              ? "not verified"
                                                                               : found->second;
    std::string text;
    if (value.is_array())
      for (const auto& part : value) text += (text.empty() ? "" : "; ") + part.get<std::string>();
    else text = value.is_string() ? value.get<std::string>() : value.is_null() ? "unknown" : value.dump();
    fmt::print("{:<14}{}{}\n", item.key(), text, from.empty() ? "" : "   [" + from + "]");
  }
  fmt::print("{:<14}{}\n\n", "here", here ? "yes" : "no");
}

}  // namespace

int sources_command(const SourcesArguments& a) {
  auto rows = select::catalogue(select::user_catalogues(a.recipe));
  const auto settings = hub::Settings::from_environment();
  const auto everything = rows;
  const auto is_here = [&](const CatalogueRow& row) {
    return select::local_source(settings, row.id, everything).has_value();
  };
  if (!a.id.empty()) {
    std::vector<std::string> known;
    for (const auto& row : rows) known.push_back(row.id);
    std::erase_if(rows, [&](const CatalogueRow& row) { return row.id != a.id && row.system != a.id; });
    const auto guess = nearest(a.id, known);
    GRAFT_CHECK(usage, !rows.empty(), "{}: is not in the list of sources{}.", a.id,
                guess.empty() ? "; `graft sources` prints it" : "; did you mean " + guess + "?");
  }
  select::CatalogueFilter filter{a.modality, a.domain, a.licence,
                                 a.max_size.empty() ? 0 : select::parse_megabytes(a.max_size)};
  std::optional<select::DataFinding> finding;
  if (!a.data.empty()) {
    finding = select::find_modality(a.data);
    if (filter.modality.empty()) filter.modality = finding->modality;
    if (filter.domain.empty()) filter.domain = finding->domain;
    for (const auto& reason : finding->reasons) fmt::print(stderr, "{}: {}\n", a.data, reason);
    fmt::print(stderr, "modality {}, domain {}\n\n", filter.modality,
               filter.domain.empty() ? "not shown" : filter.domain);
  }
  rows = select::filtered(rows, filter);
  if (a.json) {
    Json list = Json::array();
    for (const auto& row : rows) {
      list.push_back(row.json());
      list.back()["here"] = is_here(row);
    }
    Json answer{{"sources", list}};
    if (finding) answer["data"] = finding->json();
    std::cout << answer.dump() << "\n";
    return 0;
  }
  if (!a.id.empty()) {
    for (const auto& row : rows) print_row(row, is_here(row));
    return 0;
  }
  std::string modality, domain;
  for (const auto& row : rows) {
    if (row.modality != modality) fmt::print("{}{}\n", modality.empty() ? "" : "\n", row.modality);
    if (row.modality != modality || row.domain != domain) fmt::print("  {}\n", row.domain);
    modality = row.modality;
    domain = row.domain;
    fmt::print("  {} {:<12} {:<66} {:>8} {:>9}  {}{}{}\n", row.runs() ? "●" : "○",
               row.system == row.id ? "" : row.system, row.id, parameters(row), size(row),
               cut(marked(row, "licence", row.licence), 34), row.gated ? ", gated" : "",
               is_here(row) ? "  (here)" : "");
  }
  fmt::print(
      "\n● graft runs it   ○ not yet   ? not verified   `graft sources ID` prints all of a row, `graft pull ID` "
      "fetches "
      "it\n");
  return 0;
}

}  // namespace graft::cli
