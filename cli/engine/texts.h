// The rows that predict reads: from a file or from standard input.
#pragma once

#include <functional>
#include <string_view>

#include "graft/core/json.h"

namespace graft::cli {

/// Calls `use` for each row of `file` ("-": standard input, a text or a JSON object a line), with the columns that `text`
/// and `pair` of the request name. Throws Kind::data naming the row.
/// With `conversation`, a row of `messages` goes there, and a row of training data may have its text in `prompt`.
void for_each_text(const Json& request, const std::function<void(std::string_view text, std::string_view pair)>& use,
                   const std::function<void(const Json& row)>& conversation = {});

}  // namespace graft::cli
