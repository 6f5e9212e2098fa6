#include "cli/engine/texts.h"

#include <iostream>

#include "graft/core/error.h"
#include "graft/data/table.h"

namespace graft::cli {

void for_each_text(const Json& request, const std::function<void(std::string_view, std::string_view)>& use) {
  const auto text_column = request.value("text", std::string("text")),
             pair_column = request.value("pair", std::string());
  const auto file = request.value("file", std::string("-"));
  if (file == "-") {
    int64_t number = 0;
    for (std::string line; std::getline(std::cin, line);) {
      ++number;
      if (line.empty()) continue;
      size_t bad = 0;
      if (!data::is_utf8(line, &bad))
        data::fail_row("standard input", number, text_column, fmt::format("is not UTF-8 at byte {}; convert it.", bad));
      const auto row = line.front() == '{' ? Json::parse(line, nullptr, false) : Json();
      if (!row.is_object()) use(line, "");
      else if (!row.contains(text_column) || !row[text_column].is_string())
        data::fail_row("standard input", number, text_column, "is missing or is no text.");
      else use(row[text_column].get<std::string>(), pair_column.empty() ? "" : row.value(pair_column, std::string()));
    }
    return;
  }
  data::for_each_row(file, data::BadRows::stop, [&](const data::Row& row) {
    if (!row.cells.contains(text_column) || !row.cells[text_column].is_string())
      data::fail_row(file, row.number, text_column, "is missing or is no text; name the column by --text.");
    const auto pair = pair_column.empty() ? std::string() : row.cells.value(pair_column, std::string());
    use(row.cells[text_column].get<std::string>(), pair);
  });
}

}  // namespace graft::cli
