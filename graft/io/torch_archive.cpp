// Both encodings of torch.save: the zip archive (torch 1.6 and later) and the stream of pickles before it.
// Reference: torch/serialization.py of torch 2.11 (_load and _legacy_load).
#include "graft/io/torch_archive.h"

#include "graft/io/pickle.h"
#include "graft/io/zip.h"

namespace graft::io {
namespace {

using Type = PickledValue::Type;
using namespace std::string_view_literals;

constexpr std::string_view stream_magic = "\x80\x02\x8a\x0al\xfc\x9c\x46\xf9 j\xa8P\x19"sv;
constexpr int deepest = 64;
constexpr size_t most_path_bytes = size_t{1} << 28;
constexpr int64_t largest_expanded = int64_t{1} << 30;

/// Turns nested values into tensors and plain values by their dotted path.
class Flattener {
 public:
  Flattener(TorchArchive& archive, std::shared_ptr<const void> owner, const std::string& where)
      : archive_(archive), owner_(std::move(owner)), where_(where) {}

  void run(const PickledValue& root) {
    GRAFT_CHECK(
        model,
        root.type == Type::dictionary || root.type == Type::list || root.type == Type::tuple ||
            root.type == Type::tensor,
        "{}: it holds neither a dictionary nor a tensor; save the weights with torch.save(model.state_dict(), ...)",
        where_);
    if (root.type == Type::dictionary) note_sections(root);
    visit(root, "", 0);
    Json::object_t others;
    for (auto& [path, value] : others_) others.push_back({path, std::move(value)});
    archive_.others = std::move(others);
  }

 private:
  void note_sections(const PickledValue& root) {
    for (size_t i = 0; i + 1 < root.items.size(); i += 2) {
      if (root.items[i]->type == Type::text && root.items[i + 1]->type == Type::dictionary)
        archive_.sections.push_back(root.items[i]->text);
    }
  }

  void visit(const PickledValue& value, const std::string& path, int depth) {
    GRAFT_CHECK(model, depth <= deepest, "{}: `{}...` is nested deeper than {} levels; this is no file of weights",
                where_, path.substr(0, 60), deepest);
    visited_ += path.size() + 64;
    GRAFT_CHECK(model, visited_ <= most_path_bytes, "{}: its names take more than {} MiB; this is no file of weights",
                where_, most_path_bytes >> 20);
    switch (value.type) {
      case Type::none:
      case Type::bytes:
      case Type::global:
      case Type::storage:
        return;
      case Type::boolean:
        return keep(path, value.integer != 0);
      case Type::integer:
        return keep(path, value.integer);
      case Type::real:
        return keep(path, value.real);
      case Type::text:
        return keep(path, value.text);
      case Type::tensor:
        return keep_tensor(path, value);
      case Type::list:
      case Type::tuple:
        for (size_t i = 0; i < value.items.size(); ++i)
          visit(*value.items[i], joined(path, std::to_string(i)), depth + 1);
        return;
      case Type::dictionary:
        for (size_t i = 0; i + 1 < value.items.size(); i += 2) {
          visit(*value.items[i + 1], joined(path, key_text(*value.items[i], path)), depth + 1);
        }
        return;
    }
  }

  static std::string joined(const std::string& path, const std::string& key) {
    return path.empty() ? key : path + "." + key;
  }

  std::string key_text(const PickledValue& key, const std::string& path) {
    if (key.type == Type::text) return key.text;
    if (key.type == Type::integer) return std::to_string(key.integer);
    fail(Kind::model,
         "{}: `{}` has a key that is neither a text nor a whole number; save the weights alone with "
         "torch.save(model.state_dict(), ...)",
         where_, path);
  }

  void keep(const std::string& path, Json value) {
    others_[path] = std::move(value);
  }  // the last one counts, as in Python

  void keep_tensor(const std::string& path, const PickledValue& value) {
    const auto& storage = *value.storage;
    const int64_t width = element_size(storage.dtype);
    int64_t bytes = 0;
    const int64_t count = element_count(value.shape);
    const bool countable = count >= 0 && !__builtin_mul_overflow(count, width, &bytes);
    GRAFT_CHECK(model, countable && reaches(value) <= storage.elements,
                "{}: tensor `{}` of shape {} and strides {} from element {} on does not fit its storage of {} "
                "elements; the file is damaged",
                where_, path, shape_text(value.shape), shape_text(value.strides), value.integer, storage.elements);
    GRAFT_CHECK(model, bytes <= largest_expanded || static_cast<uint64_t>(count) <= storage.elements,
                "{}: tensor `{}` repeats {} stored elements to shape {}; save it again as a dense tensor", where_, path,
                storage.elements, shape_text(value.shape));
    TensorView view{storage.dtype, value.shape, value.strides};
    view.data = storage.bytes.data() + (count ? value.integer * width : 0);
    view.storage = storage.bytes.data();
    view.owner = owner_;
    archive_.tensors[path] = std::move(view);
  }

  /// One past the last element that the view reads; the largest number when that does not fit.
  static uint64_t reaches(const PickledValue& value) {
    uint64_t last = value.integer;
    for (size_t i = 0; i < value.shape.size(); ++i) {
      if (value.shape[i] == 0) return 0;
      uint64_t step = 0;
      const bool overflows = __builtin_mul_overflow(static_cast<uint64_t>(value.shape[i] - 1),
                                                    static_cast<uint64_t>(value.strides[i]), &step);
      if (overflows || __builtin_add_overflow(last, step, &last)) return UINT64_MAX;
    }
    return last == UINT64_MAX ? last : last + 1;
  }

  TorchArchive& archive_;
  std::shared_ptr<const void> owner_;
  const std::string& where_;
  std::map<std::string, Json> others_;
  size_t visited_ = 0;
};

uint64_t bytes_of(const PickledStorage& storage, const std::string& key, const std::string& where) {
  uint64_t bytes = 0;
  const bool overflows =
      __builtin_mul_overflow(storage.elements, static_cast<uint64_t>(element_size(storage.dtype)), &bytes);
  GRAFT_CHECK(model, !overflows, "{}: storage `{}` claims {} elements; the file is damaged", where, key,
              storage.elements);
  return bytes;
}

void fill_storage(PickledStorage& storage, const std::string& key, std::string_view bytes, const std::string& where) {
  const auto needed = bytes_of(storage, key, where);
  GRAFT_CHECK(model, needed <= bytes.size(),
              "{}: storage `{}` should have {} bytes, found {}; the file is damaged or cut off, fetch it again", where,
              key, needed, bytes.size());
  storage.bytes = bytes.substr(0, needed);
}

TorchArchive read_zip(const std::shared_ptr<const MappedFile>& file, const std::string& where) {
  const auto records = zip_records(file->bytes(), where);
  std::string top;
  for (const auto& [name, content] : records) {
    if (name == "data.pkl" || name.ends_with("/data.pkl")) {
      top = name.substr(0, name.size() - "data.pkl"sv.size());
      break;
    }
  }
  const auto pickle = records.find(top + "data.pkl");
  GRAFT_CHECK(model, pickle != records.end(),
              "{}: a zip archive, but without the record `data.pkl` that torch.save writes", where);
  GRAFT_CHECK(model, !records.contains(top + "constants.pkl"),
              "{}: a TorchScript program, not a file of weights; load it in Python with torch.jit.load and save its "
              "state_dict()",
              where);
  const auto order = records.find(top + "byteorder");
  GRAFT_CHECK(model, order == records.end() || order->second == "little",
              "{}: written on a big-endian machine (byteorder `{}`); save it again on a little-endian one", where,
              order->second.substr(0, 20));

  Unpickler unpickler(pickle->second, where);
  const auto& root = unpickler.read();
  for (auto& [key, storage] : unpickler.storages()) {
    const auto record = records.find(top + "data/" + key);
    GRAFT_CHECK(model, record != records.end(),
                "{}: the record `{}data/{}` of a tensor is missing; the file is damaged", where, top, key);
    fill_storage(storage, key, record->second, where);
  }
  TorchArchive archive;
  Flattener(archive, file, where).run(root);
  return archive;
}

void check_machine(const PickledValue& system, const std::string& where) {
  for (size_t i = 0; i + 1 < system.items.size(); i += 2) {
    if (system.items[i]->text != "little_endian") continue;
    GRAFT_CHECK(model, system.items[i + 1]->integer != 0,
                "{}: written on a big-endian machine (little_endian is false); save it again on a little-endian one",
                where);
  }
}

/// magic, protocol 1001, the machine, the object, the keys of the storages, then each one's element count and bytes.
TorchArchive read_stream(const std::shared_ptr<const MappedFile>& file, const std::string& where) {
  const auto bytes = file->bytes();
  Unpickler unpickler(bytes, where);
  unpickler.read();
  const auto& protocol = unpickler.read();
  GRAFT_CHECK(model, protocol.integer == 1001,
              "{}: the stream has version {}, graft reads 1001; save it again with a newer torch", where,
              protocol.integer);
  check_machine(unpickler.read(), where);
  const auto& root = unpickler.read();
  const auto& keys = unpickler.read();

  auto rest = bytes.substr(unpickler.position());
  for (const auto* key : keys.items) {
    const auto found = unpickler.storages().find(key->text);
    GRAFT_CHECK(model, found != unpickler.storages().end(),
                "{}: storage `{}` belongs to no tensor; the file is damaged", where, key->text);
    GRAFT_CHECK(model, rest.size() >= 8, "{}: it ends before storage `{}`; the file is cut off, fetch it again", where,
                key->text);
    uint64_t elements = 0;
    for (int i = 7; i >= 0; --i) elements = elements << 8 | static_cast<unsigned char>(rest[i]);
    GRAFT_CHECK(model, elements == found->second.elements,
                "{}: storage `{}` should have {} elements, found {}; the file is damaged", where, key->text,
                found->second.elements, elements);
    fill_storage(found->second, key->text, rest.substr(8), where);
    rest.remove_prefix(8 + found->second.bytes.size());
  }
  for (const auto& [key, storage] : unpickler.storages()) {
    GRAFT_CHECK(model, storage.bytes.data(), "{}: storage `{}` is missing; the file is damaged", where, key);
  }
  TorchArchive archive;
  Flattener(archive, file, where).run(root);
  return archive;
}

}  // namespace

TorchArchive read_torch_archive(const fs::path& path) {
  const auto where = path.string();
  const auto file = std::make_shared<const MappedFile>(path, Kind::model);
  const auto bytes = file->bytes();
  if (bytes.starts_with("PK\x03\x04")) return read_zip(file, where);
  if (bytes.starts_with(stream_magic)) return read_stream(file, where);
  GRAFT_CHECK(model, !bytes.starts_with("version https://git-lfs"),
              "{}: a Git LFS pointer, not the weights; fetch the file itself (`git lfs pull` or `graft pull`)", where);
  fail(Kind::model,
       "{}: not a PyTorch archive ({} bytes, neither a zip archive nor a stream of torch.save); fetch it again", where,
       bytes.size());
}

}  // namespace graft::io
