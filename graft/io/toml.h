// TOML to and from JSON values, by toml++. Errors name file, line and column.
#pragma once

#include <string>

#include "graft/core/json.h"

namespace graft::io {

/// Throws Kind::usage with "name:line:column: what" when the text is not TOML.
Json parse_toml(const std::string& text, const std::string& name);
/// Objects become tables; nulls are left out.
std::string write_toml(const Json& json);

}  // namespace graft::io
