#include "graft/data/language/language_rows.h"

#include "graft/core/error.h"
#include "graft/core/text.h"

namespace graft::data {
namespace {

bool has(const Row& row, const std::string& column) {
  return row.cells.contains(column) && !row.cells[column].is_null();
}

/// Text, or a list of parts as the multimodal templates have them.
bool is_content(const Json& value) { return value.is_string() || value.is_array(); }

Json conversation(const fs::path& file, const Row& row) {
  const auto& messages = row.cells["messages"];
  const auto fail_here = [&](const std::string& sentence) { fail_row(file, row.number, "messages", sentence); };
  if (!messages.is_array() || messages.empty())
    fail_here(
        fmt::format("expected a list of messages, each with role and content, found {}", excerpt(messages.dump())));
  bool answered = false;
  for (size_t i = 0; i < messages.size(); ++i) {
    const auto& message = messages[i];
    const bool good =
        message.is_object() && message.contains("role") && message["role"].is_string() &&
        ((message.contains("content") && is_content(message["content"])) || message.contains("tool_calls"));
    if (!good)
      fail_here(fmt::format("message {}: expected an object with role and content, found {}", i + 1,
                            excerpt(message.dump())));
    answered = answered || message["role"] == "assistant";
  }
  if (!answered) fail_here("no message has the role assistant, so there is nothing to learn");
  Json result{{"messages", messages}};
  if (has(row, "tools")) result["tools"] = row.cells["tools"];
  return result;
}

std::string text_of(const fs::path& file, const Row& row, const std::string& column) {
  const auto& value = row.cells[column];
  if (!value.is_string()) fail_row(file, row.number, column, "expected text, found " + excerpt(value.dump()));
  return value;
}

}  // namespace

std::string language_row(const fs::path& file, const Row& row, const std::string& text_column) {
  if (has(row, "messages")) return conversation(file, row).dump();
  if (has(row, "prompt") && has(row, "completion")) {
    const Json both{{"prompt", text_of(file, row, "prompt")}, {"completion", text_of(file, row, "completion")}};
    if (both["completion"] == "") fail_row(file, row.number, "completion", "expected text, found none");
    return both.dump();
  }
  if (has(row, text_column)) {
    const auto text = text_of(file, row, text_column);
    if (trimmed(text).empty())
      fail_row(file, row.number, text_column, "expected text, found none; fill the cell or remove the row");
    return Json{{"text", text}}.dump();
  }
  std::vector<std::string> columns;
  for (const auto& item : row.cells.items()) columns.push_back(item.key());
  fail_row(
      file, row.number, text_column,
      fmt::format("expected messages, or prompt and completion, or {} (set data.text to another name); the columns "
                  "are {}",
                  text_column, listed(columns)));
}

}  // namespace graft::data
