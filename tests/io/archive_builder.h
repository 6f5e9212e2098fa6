// Small PyTorch archives by hand: zip records and pickle opcodes, whole or wrong.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace graft::tests {

using namespace std::string_literals;

inline std::string number(uint64_t value, int bytes) {
  std::string text;
  for (int i = 0; i < bytes; ++i) text += i < 8 ? static_cast<char>(value >> 8 * i) : '\0';
  return text;
}

struct ZipOptions {
  uint64_t method = 0;
  bool zip64 = false;
};

inline std::string zip(const std::vector<std::pair<std::string, std::string>>& records, ZipOptions options = {}) {
  std::string file, directory;
  for (const auto& [name, content] : records) {
    const auto offset = file.size();
    const auto sizes = number(content.size(), 4) + number(content.size(), 4);
    file += "PK\x03\x04"s + number(0, 4) + number(options.method, 2) + number(0, 8) + sizes + number(name.size(), 2) +
            number(0, 2) + name + content;
    const auto extra =
        number(1, 2) + number(24, 2) + number(content.size(), 8) + number(content.size(), 8) + number(offset, 8);
    directory += "PK\x01\x02"s + number(0, 6) + number(options.method, 2) + number(0, 8) +
                 (options.zip64 ? std::string(8, '\xff') : sizes) + number(name.size(), 2) +
                 number(options.zip64 ? extra.size() : 0, 2) + number(0, 10) +
                 (options.zip64 ? std::string(4, '\xff') : number(offset, 4)) + name + (options.zip64 ? extra : "");
  }
  const auto begin = file.size();
  file += directory;
  if (options.zip64) {
    const auto end = file.size();
    file += "PK\x06\x06"s + number(44, 8) + number(0, 12) + number(records.size(), 8) + number(records.size(), 8) +
            number(directory.size(), 8) + number(begin, 8);
    file += "PK\x06\x07"s + number(0, 4) + number(end, 8) + number(1, 4);
    return file + "PK\x05\x06"s + number(0, 4) + std::string(12, '\xff') + number(0, 2);
  }
  return file + "PK\x05\x06"s + number(0, 4) + number(records.size(), 2) + number(records.size(), 2) +
         number(directory.size(), 4) + number(begin, 4) + number(0, 2);
}

// Pickle opcodes, protocol 2.
inline std::string text(const std::string& value) { return "X" + number(value.size(), 4) + value; }
inline std::string whole(int64_t value) { return "\x8a\x08"s + number(static_cast<uint64_t>(value), 8); }
inline std::string global(const std::string& module, const std::string& name) {
  return "c" + module + "\n" + name + "\n";
}
inline std::string tuple(const std::vector<std::string>& items) {
  std::string pickle = "(";
  for (const auto& item : items) pickle += item;
  return pickle + "t";
}
inline std::string dictionary(const std::vector<std::pair<std::string, std::string>>& items) {
  std::string pickle = "}(";
  for (const auto& [key, value] : items) pickle += text(key) + value;
  return pickle + "u";
}
inline std::string pickled(const std::string& object) { return "\x80\x02"s + object + "."; }
inline std::string storage(const std::string& type, const std::string& key, int64_t elements) {
  return tuple({text("storage"), global("torch", type), text(key), text("cpu"), whole(elements)}) + "Q";
}
inline std::string wholes(const std::vector<int64_t>& values) {
  std::vector<std::string> items;
  for (const auto value : values) items.push_back(whole(value));
  return tuple(items);
}
inline std::string tensor(const std::string& stored, int64_t offset, const std::vector<int64_t>& shape,
                          const std::vector<int64_t>& strides) {
  return global("torch._utils", "_rebuild_tensor_v2") +
         tuple({stored, whole(offset), wholes(shape), wholes(strides), "\x89",
                global("collections", "OrderedDict") + ")R"}) +
         "R";
}
inline std::string archive(const std::string& object,
                           const std::vector<std::pair<std::string, std::string>>& storages = {}) {
  std::vector<std::pair<std::string, std::string>> records{{"m/data.pkl", pickled(object)}, {"m/byteorder", "little"}};
  for (const auto& [key, content] : storages) records.emplace_back("m/data/" + key, content);
  return zip(records);
}

}  // namespace graft::tests
