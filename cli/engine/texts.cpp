#include "cli/engine/texts.h"

#include <iostream>

#include "graft/core/error.h"
#include "graft/data/table.h"

namespace graft::cli {

namespace fs = std::filesystem;

void for_each_text(const Json& request, const std::function<void(std::string_view, std::string_view)>& use,
                   const std::function<void(const Json&)>& conversation) {
  const auto text_column = request.value("text", std::string("text")),
             pair_column = request.value("pair", std::string());
  const auto file = request.value("file", std::string("-"));
  const auto use_row = [&](const fs::path& place, int64_t number, const Json& row) {
    const auto pair = pair_column.empty() ? std::string() : row.value(pair_column, std::string());
    const auto is_text = [&](const std::string& column) { return row.contains(column) && row[column].is_string(); };
    if (conversation && row.contains("messages") && row["messages"].is_array() && !row["messages"].empty())
      conversation(row);
    else if (is_text(text_column)) use(row[text_column].get<std::string>(), pair);
    else if (conversation && is_text("prompt")) use(row["prompt"].get<std::string>(), pair);
    else data::fail_row(place, number, text_column, "is missing or is no text; name the column by --text.");
  };
  if (file == "-") {
    int64_t number = 0;
    for (std::string line; std::getline(std::cin, line);) {
      ++number;
      if (line.empty()) continue;
      size_t bad = 0;
      if (!data::is_utf8(line, &bad))
        data::fail_row("standard input", number, text_column, fmt::format("is not UTF-8 at byte {}; convert it.", bad));
      const auto row = line.front() == '{' ? Json::parse(line, nullptr, false) : Json();
      if (row.is_object()) use_row("standard input", number, row);
      else use(line, "");
    }
    return;
  }
  data::for_each_row(file, data::BadRows::stop, [&](const data::Row& row) { use_row(file, row.number, row.cells); });
}

}  // namespace graft::cli
