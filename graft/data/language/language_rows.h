// Rows for causal language modelling: a conversation, a prompt with its completion, or a plain text.
#pragma once

#include "graft/data/table.h"

namespace graft::data {

/// The row as one JSON object, which is what Examples::texts holds for the task causal_lm:
///   {"messages": [{"role", "content", ...}, ...], "tools"?}, or {"prompt", "completion"}, or {"text"}.
/// Messages count before a prompt, a prompt before a text; null counts as absent. Throws Kind::data by fail_row.
std::string language_row(const fs::path& file, const Row& row, const std::string& text_column);

}  // namespace graft::data
