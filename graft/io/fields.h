// Plain structs described once: a struct's visit() names its fields, and from that follow reading (strict),
// writing, documenting and comparing. The manner of gemma.cpp's fields.
//
//   struct HeadOptions {
//     int64_t epochs = 10;
//     template <class Visitor> void visit(Visitor&& field) {
//       field("epochs", epochs, "most epochs of the head phase");
//     }
//   };
#pragma once

#include <algorithm>
#include <limits>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "graft/core/error.h"
#include "graft/core/json.h"

namespace graft::io {

template <class T>
concept Described = requires(T t) {
  t.visit([](const char*, auto&, const char*) {});
};

template <class T>
struct IsVector : std::false_type {};
template <class T>
struct IsVector<std::vector<T>> : std::true_type {};
template <class T>
struct IsOptional : std::false_type {};
template <class T>
struct IsOptional<std::optional<T>> : std::true_type {};

template <class T>
std::string type_word() {
  if constexpr (std::is_same_v<T, bool>) return "true or false";
  else if constexpr (std::is_integral_v<T>) return "a whole number";
  else if constexpr (std::is_floating_point_v<T>) return "a number";
  else if constexpr (std::is_same_v<T, std::string>) return "a text in quotes";
  else if constexpr (IsVector<T>::value) return "a list";
  else return "a section";
}

/// A whole number of `json` within the range of T.
template <class T>
bool fits(const Json& json) {
  return json.is_number_unsigned() ? std::in_range<T>(json.get<uint64_t>()) : std::in_range<T>(json.get<int64_t>());
}

/// Reads `json` into `value`; every mistake becomes a sentence in `mistakes`, none throws.
template <class T>
void read_value(const Json& json, T& value, const std::string& where, std::vector<std::string>& mistakes) {
  const auto wrong = [&] {
    const auto place = where.empty() ? "the top" : where;
    mistakes.push_back(fmt::format("{}: expected {}, found {}", place, type_word<T>(), json.dump()));
  };
  if constexpr (IsOptional<T>::value) {
    typename T::value_type inner{};
    read_value(json, inner, where, mistakes);
    value = std::move(inner);
  } else if constexpr (Described<T>) {
    if (!json.is_object()) return wrong();
    std::vector<std::string> known;
    value.visit([&](const char* name, auto& field, const char*) {
      known.push_back(name);
      if (json.contains(name)) read_value(json[name], field, where.empty() ? name : where + "." + name, mistakes);
    });
    for (const auto& item : json.items()) {
      if (std::find(known.begin(), known.end(), item.key()) != known.end()) continue;
      const auto guess = nearest(item.key(), known);
      mistakes.push_back(
          fmt::format("{}: there is no such key{}", where.empty() ? item.key() : where + "." + item.key(),
                      guess.empty() ? "; known are " + listed(known, 20) : "; did you mean `" + guess + "`?"));
    }
  } else if constexpr (std::is_same_v<T, bool>) {
    json.is_boolean() ? void(value = json.get<bool>()) : wrong();
  } else if constexpr (std::is_integral_v<T>) {
    if (!json.is_number_integer()) return wrong();
    if (fits<T>(json)) value = json.get<T>();
    else
      mistakes.push_back(fmt::format("{}: expected a whole number from {} to {}, found {}", where,
                                     std::numeric_limits<T>::min(), std::numeric_limits<T>::max(), json.dump()));
  } else if constexpr (std::is_floating_point_v<T>) {
    json.is_number() ? void(value = json.get<T>()) : wrong();
  } else if constexpr (std::is_same_v<T, std::string>) {
    json.is_string() ? void(value = json.get<std::string>()) : wrong();
  } else if constexpr (IsVector<T>::value) {
    if (!json.is_array()) return wrong();
    value.clear();
    for (size_t i = 0; i < json.size(); ++i) {
      typename T::value_type item{};
      read_value(json[i], item, fmt::format("{}[{}]", where, i), mistakes);
      value.push_back(std::move(item));
    }
  } else {
    static_assert(!sizeof(T), "a field type that fields.h does not know");
  }
}

template <class T>
Json write_value(const T& value) {
  if constexpr (IsOptional<T>::value) {
    return value ? write_value(*value) : Json(nullptr);
  } else if constexpr (Described<T>) {
    Json json = Json::object();
    const_cast<T&>(value).visit([&](const char* name, auto& field, const char*) {
      auto written = write_value(field);
      if (!written.is_null()) json[name] = std::move(written);
    });
    return json;
  } else if constexpr (IsVector<T>::value) {
    Json json = Json::array();
    for (const auto& item : value) json.push_back(write_value(item));
    return json;
  } else {
    return Json(value);
  }
}

}  // namespace graft::io
