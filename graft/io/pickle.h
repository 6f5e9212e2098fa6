// Python's pickle as data: a stack machine for protocols 2 to 5 that builds values and calls nothing.
// Opcodes: CPython's Lib/pickletools.py. A fixed allow-list of globals stands for what torch.save writes.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "graft/io/tensor_view.h"

namespace graft::io {

/// A run of elements in the archive; `bytes` is filled in by the reader of the container.
struct PickledStorage {
  DType dtype = DType::u8;
  uint64_t elements = 0;
  std::string_view bytes;
};

struct PickledValue {
  enum class Type { none, boolean, integer, real, text, bytes, list, tuple, dictionary, storage, tensor, global };
  Type type = Type::none;
  int64_t integer = 0;  // boolean, integer; the offset of a tensor
  double real = 0;
  std::string text;                   // text, bytes; the name of a global; the class of a dictionary that is an object
  std::vector<PickledValue*> items;   // list, tuple; dictionary: key, value, key, value
  PickledStorage* storage = nullptr;  // storage, tensor
  std::vector<int64_t> shape, strides;
};

/// Several pickles can follow each other in one stream (the older encoding of torch.save).
class Unpickler {
 public:
  /// `where` begins every message.
  Unpickler(std::string_view bytes, std::string where) : bytes_(bytes), where_(std::move(where)) {}
  /// The next pickle. Values live as long as the unpickler; they may contain each other. Throws Kind::model.
  const PickledValue& read();
  size_t position() const { return position_; }
  /// By key, as the pickles named them.
  std::map<std::string, PickledStorage>& storages() { return storages_; }

 private:
  using Value = PickledValue;
  using Type = PickledValue::Type;

  bool step();
  bool step_constant(uint8_t opcode);
  bool step_container(uint8_t opcode);
  bool step_memory(uint8_t opcode);
  bool step_object(uint8_t opcode);

  std::string_view take(uint64_t size);
  uint64_t take_number(int size);
  std::string_view take_line();

  Value* make(Type type);
  Value* make_text(Type type, std::string_view text);
  Value* make_integer(std::string_view little_endian);
  void push(Value* value) { stack_.push_back(value); }
  Value* pop();
  Value* top();
  std::vector<Value*> pop_to_mark();
  void push_tuple(std::vector<Value*> items);
  void append(Value* target, std::vector<Value*> items, Type wanted);
  void remember(uint64_t index);
  void recall(uint64_t index);

  void push_global(const std::string& module, const std::string& name);
  void reduce(bool construct);
  void build();
  void load_persistent();
  Value* rebuild_tensor(const std::vector<Value*>& arguments);
  std::vector<int64_t> whole_numbers(const Value* value);
  const Value* argument(const std::vector<Value*>& arguments, size_t index, Type type);
  [[noreturn]] void fail_damaged(const std::string& what);

  std::string_view bytes_;
  std::string where_;
  size_t position_ = 0, links_ = 0;
  std::deque<Value> values_;  // the owner of all: values may form cycles
  std::vector<Value*> stack_;
  std::vector<size_t> marks_;
  std::map<uint64_t, Value*> memo_;
  std::map<std::string, PickledStorage> storages_;
};

}  // namespace graft::io
