// One JSON type for the whole house. Ordered: a configuration that is read and written keeps its order.
#pragma once

#include <nlohmann/json.hpp>

namespace graft {
using Json = nlohmann::ordered_json;
}
