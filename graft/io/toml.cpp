// TOML by toml++ (https://marzer.github.io/tomlplusplus/), as JSON values so that fields.h reads both alike.
#include "graft/io/toml.h"

#include <toml++/toml.h>

#include <algorithm>
#include <cmath>
#include <sstream>

#include "graft/core/error.h"

namespace graft::io {
namespace {

Json to_json(const toml::node& node) {
  if (const auto* table = node.as_table()) {
    std::vector<std::pair<toml::source_position, std::string>> order;  // toml++ sorts by name, people do not
    for (const auto& [key, value] : *table) order.emplace_back(key.source().begin, std::string(key.str()));
    std::stable_sort(order.begin(), order.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    Json json = Json::object();
    for (const auto& item : order) json[item.second] = to_json(*table->get(item.second));
    return json;
  }
  if (const auto* array = node.as_array()) {
    Json json = Json::array();
    for (const auto& item : *array) json.push_back(to_json(item));
    return json;
  }
  if (const auto* text = node.as_string()) return text->get();
  if (const auto* number = node.as_integer()) return number->get();
  if (const auto* number = node.as_floating_point()) return number->get();
  if (const auto* truth = node.as_boolean()) return truth->get();
  std::ostringstream text;  // dates and times
  node.visit([&](const auto& value) { text << value; });
  return text.str();
}

std::string key_text(const std::string& key) {
  const bool bare =
      !key.empty() &&
      key.find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-") == std::string::npos;
  return bare ? key : Json(key).dump();
}

/// JSON's escapes are TOML's, but for DEL, which TOML wants escaped and JSON leaves.
std::string toml_string(const std::string& text) {
  std::string result;
  for (const char letter : Json(text).dump()) letter == '\x7f' ? result += "\\u007f" : result += letter;
  return result;
}

std::string value_text(const Json& json) {
  if (json.is_string()) return toml_string(json.get<std::string>());
  if (json.is_number_float()) {
    const double number = json.get<double>();
    if (std::isnan(number)) return "nan";
    if (std::isinf(number)) return number > 0 ? "inf" : "-inf";
    return json.dump();
  }
  if (json.is_array()) {
    std::string text;
    for (const auto& item : json) {
      if (!item.is_null()) text += (text.empty() ? "" : ", ") + value_text(item);
    }
    return "[" + text + "]";
  }
  if (json.is_object()) {
    std::string text;
    for (const auto& item : json.items()) {
      if (!item.value().is_null())
        text += (text.empty() ? " " : ", ") + key_text(item.key()) + " = " + value_text(item.value());
    }
    return "{" + text + " }";
  }
  return json.dump();
}

void write_table(const Json& table, const std::string& path, std::string& text) {
  for (const auto& item : table.items()) {
    if (item.value().is_null() || item.value().is_object()) continue;
    text += key_text(item.key()) + " = " + value_text(item.value()) + "\n";
  }
  for (const auto& item : table.items()) {
    if (!item.value().is_object()) continue;
    const auto name = path.empty() ? key_text(item.key()) : path + "." + key_text(item.key());
    text += (text.empty() ? "[" : "\n[") + name + "]\n";
    write_table(item.value(), name, text);
  }
}

}  // namespace

Json parse_toml(const std::string& text, const std::string& name) {
  try {
    return to_json(toml::parse(text, name));
  } catch (const toml::parse_error& e) {
    fail(Kind::usage, "{}:{}:{}: {}", name, e.source().begin.line, e.source().begin.column, e.description());
  }
}

std::string write_toml(const Json& json) {
  GRAFT_ASSERT(json.is_object(), "TOML is a table, this is {}", json.dump());
  std::string text;
  write_table(json, "", text);
  return text;
}

}  // namespace graft::io
