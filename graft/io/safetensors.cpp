// safetensors, as strict as the reference reader: https://github.com/huggingface/safetensors
// The writer orders tensors as the reference does (wide types first, then names), so equal content gives equal bytes.
#include "graft/io/safetensors.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <tuple>

#include "graft/core/error.h"
#include "graft/core/hash.h"
#include "graft/core/json.h"

namespace graft::io {
namespace {

using SortedJson = nlohmann::json;  // looked up by name; the ordered one searches one by one

constexpr uint64_t largest_header = 100'000'000;

/// The reference writes types of a higher rank first.
constexpr std::array ranked{DType::boolean, DType::u8,  DType::i8,  DType::i16, DType::f16,
                            DType::bf16,    DType::i32, DType::f32, DType::f64, DType::i64};

size_t rank_of(DType type) { return std::find(ranked.begin(), ranked.end(), type) - ranked.begin(); }

std::optional<DType> type_named(const std::string& name) {
  for (const auto type : ranked) {
    if (dtype_name(type) == name) return type;
  }
  return std::nullopt;
}

std::string known_types() {
  std::vector<std::string> names;
  for (const auto type : ranked) names.push_back(dtype_name(type));
  return listed(names, names.size());
}

uint64_t little_endian(const char* bytes) {
  uint64_t value = 0;
  for (int i = 7; i >= 0; --i) value = value << 8 | static_cast<unsigned char>(bytes[i]);
  return value;
}

std::string_view header_of(std::string_view file, const std::string& where) {
  GRAFT_CHECK(model, file.size() >= 8,
              "{}: it has {} bytes, a safetensors file has at least 8; the download was cut off, fetch it again", where,
              file.size());
  const uint64_t size = little_endian(file.data());
  GRAFT_CHECK(model, file.size() < 9 || file[8] == '{',
              "{}: not a safetensors file: no header begins at byte 8; it may be an error page or a Git LFS pointer, "
              "fetch it again",
              where);
  GRAFT_CHECK(model, size <= largest_header,
              "{}: the header claims {} bytes, at most {} are allowed; the file is damaged, fetch it again", where,
              size, largest_header);
  GRAFT_CHECK(model, size <= file.size() - 8,
              "{}: the header needs {} bytes, the file ends after {}; the download was cut off, fetch it again", where,
              size, file.size() - 8);
  GRAFT_CHECK(model, size > 0, "{}: the header is empty; the file is damaged, fetch it again", where);
  return file.substr(8, size);
}

SortedJson parse_header(std::string_view header, const std::string& where) {
  std::set<std::string> names;
  const auto refuse_repeats = [&](int depth, SortedJson::parse_event_t event, SortedJson& parsed) {
    if (event != SortedJson::parse_event_t::key || depth != 1) return true;
    const auto name = parsed.get<std::string>();
    GRAFT_CHECK(model, names.insert(name).second, "{}: the header names `{}` twice; the file is damaged", where, name);
    return true;
  };
  try {
    auto json = SortedJson::parse(header, refuse_repeats);
    GRAFT_CHECK(model, json.is_object(), "{}: the header is not a JSON object; the file is damaged", where);
    return json;
  } catch (const SortedJson::exception& e) {
    fail(Kind::model, "{}: the header is not JSON ({}); the file is damaged, fetch it again", where, e.what());
  }
}

std::vector<int64_t> whole_numbers(const SortedJson& entry, const char* key, const std::string& where,
                                   const std::string& name) {
  const auto found = entry.is_object() ? entry.find(key) : entry.end();
  const bool is_list = entry.is_object() && found != entry.end() && found->is_array();
  GRAFT_CHECK(model, is_list, "{}: tensor `{}`: `{}` is missing or no list; the file is damaged", where, name, key);
  std::vector<int64_t> numbers;
  for (const auto& item : *found) {
    const bool fits = item.is_number_unsigned() && item.get<uint64_t>() <= static_cast<uint64_t>(INT64_MAX);
    GRAFT_CHECK(model, fits, "{}: tensor `{}`: `{}` holds {}, expected whole numbers from 0 on", where, name, key,
                item.dump());
    numbers.push_back(item.get<int64_t>());
  }
  return numbers;
}

struct Entry {
  std::string name;
  TensorView view;
  int64_t begin = 0, end = 0;
};

Entry read_entry(const std::string& name, const SortedJson& json, const std::string& where) {
  Entry entry;
  entry.name = name;
  entry.view.shape = whole_numbers(json, "shape", where, name);
  const auto offsets = whole_numbers(json, "data_offsets", where, name);
  const auto type = json.contains("dtype") && json["dtype"].is_string() ? json["dtype"].get<std::string>() : "";
  const auto known = type_named(type);
  GRAFT_CHECK(model, known, "{}: tensor `{}` has the type `{}`, which graft does not read; it reads {}", where, name,
              type, known_types());
  entry.view.dtype = *known;
  GRAFT_CHECK(model, offsets.size() == 2 && offsets[0] <= offsets[1],
              "{}: tensor `{}`: data_offsets are {}, expected a begin and an end", where, name, shape_text(offsets));
  entry.begin = offsets[0];
  entry.end = offsets[1];
  const int64_t count = element_count(entry.view.shape);
  int64_t bytes = 0;
  const bool fits = count >= 0 && !__builtin_mul_overflow(count, element_size(*known), &bytes);
  GRAFT_CHECK(model, fits && bytes == entry.end - entry.begin,
              "{}: tensor `{}`: {} of shape {} does not fill the {} bytes that its offsets span; the file is damaged",
              where, name, type, shape_text(entry.view.shape), entry.end - entry.begin);
  entry.view.strides = row_major(entry.view.shape);
  return entry;
}

/// From byte 0 on, one tensor after the other, to the end of the file.
void check_cover(std::vector<Entry>& entries, uint64_t size, const std::string& where) {
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
  });
  int64_t covered = 0;
  for (const auto& entry : entries) {
    GRAFT_CHECK(model, entry.begin == covered,
                "{}: tensor `{}` begins at byte {} of the data, expected {}: tensors {}; the file is damaged", where,
                entry.name, entry.begin, covered, entry.begin < covered ? "overlap" : "leave a hole");
    covered = entry.end;
  }
  GRAFT_CHECK(
      model, static_cast<uint64_t>(covered) <= size,
      "{}: the header describes {} bytes of tensors, the file holds {}; the download was cut off, fetch it again",
      where, covered, size);
  GRAFT_CHECK(
      model, static_cast<uint64_t>(covered) == size,
      "{}: the header describes {} bytes of tensors, the file holds {}; what follows the tensors does not belong there",
      where, covered, size);
}

std::map<std::string, std::string> read_metadata(const SortedJson& json, const std::string& where) {
  std::map<std::string, std::string> metadata;
  GRAFT_CHECK(model, json.is_object(), "{}: __metadata__ is {}, expected names and texts", where,
              json.dump().substr(0, 80));
  for (const auto& item : json.items()) {
    GRAFT_CHECK(model, item.value().is_string(), "{}: __metadata__.{} is {}, expected a text", where, item.key(),
                item.value().dump().substr(0, 80));
    metadata[item.key()] = item.value().get<std::string>();
  }
  return metadata;
}

int64_t byte_size(const TensorView& view) { return element_count(view.shape) * element_size(view.dtype); }

using Named = TensorMap::const_pointer;

std::vector<Named> in_file_order(const TensorMap& tensors) {
  std::vector<Named> order;
  for (const auto& item : tensors) {
    const auto& [name, view] = item;
    GRAFT_ASSERT(element_count(view.shape) >= 0, "`{}` has the shape {}", name, shape_text(view.shape));
    GRAFT_ASSERT(element_count(view.shape) <= 1 || view.strides == row_major(view.shape),
                 "`{}` is not row-major: strides {}, shape {}", name, shape_text(view.strides), shape_text(view.shape));
    GRAFT_ASSERT(name != "__metadata__", "a tensor cannot have this name");
    order.push_back(&item);
  }
  std::stable_sort(order.begin(), order.end(),
                   [](Named a, Named b) { return rank_of(a->second.dtype) > rank_of(b->second.dtype); });
  return order;
}

std::string quoted(const std::string& text) { return Json(text).dump(); }

std::string make_header(const std::vector<Named>& order, const std::map<std::string, std::string>& metadata) {
  std::string header = "{\"__metadata__\":" + SortedJson(metadata).dump();
  int64_t offset = 0;
  for (const auto* item : order) {
    const auto& [name, view] = *item;
    const int64_t end = offset + byte_size(view);
    std::string shape;
    for (const auto size : view.shape) shape += (shape.empty() ? "" : ",") + std::to_string(size);
    header += fmt::format(",{}:{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{},{}]}}", quoted(name),
                          dtype_name(view.dtype), shape, offset, end);
    offset = end;
  }
  header += '}';
  header.resize((header.size() + 7) / 8 * 8, ' ');
  GRAFT_ASSERT(header.size() <= largest_header, "a header of {} bytes", header.size());
  return header;
}

}  // namespace

SafetensorsFile read_safetensors(const fs::path& path) {
  const auto where = path.string();
  const auto file = std::make_shared<const MappedFile>(path, Kind::model);
  const auto header = header_of(file->bytes(), where);
  const auto json = parse_header(header, where);
  const auto data = file->bytes().substr(8 + header.size());

  SafetensorsFile result;
  result.file = file;
  std::vector<Entry> entries;
  for (const auto& item : json.items()) {
    if (item.key() == "__metadata__") result.metadata = read_metadata(item.value(), where);
    else entries.push_back(read_entry(item.key(), item.value(), where));
  }
  check_cover(entries, data.size(), where);
  for (auto& entry : entries) {
    entry.view.data = data.data() + entry.begin;
    entry.view.storage = entry.view.data;
    entry.view.owner = file;
    result.tensors.emplace(std::move(entry.name), std::move(entry.view));
  }
  return result;
}

std::string write_safetensors(const fs::path& path, const TensorMap& tensors,
                              std::map<std::string, std::string> metadata) {
  if (metadata.empty()) metadata["format"] = "pt";
  const auto order = in_file_order(tensors);
  const auto header = make_header(order, metadata);
  std::string size(8, '\0');
  for (int i = 0; i < 8; ++i) size[i] = static_cast<char>(header.size() >> 8 * i);

  FileWriter writer(path);
  Sha256 hash;
  const auto write = [&](std::string_view bytes) {
    writer.write(bytes);
    hash.update(bytes);
  };
  write(size);
  write(header);
  for (const auto* item : order) write({item->second.data, static_cast<size_t>(byte_size(item->second))});
  writer.commit();
  return hash.hex();
}

}  // namespace graft::io
