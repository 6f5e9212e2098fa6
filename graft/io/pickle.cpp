// The stack machine. Each value costs at least one byte of the pickle, and their number is limited: no short file makes a large heap.
#include "graft/io/pickle.h"

#include <cstring>
#include <set>

#include "graft/core/error.h"

namespace graft::io {
namespace {

constexpr size_t most_values = 4'000'000;
constexpr size_t most_links = 16'000'000;  // a long list can be named again and again in two bytes
constexpr size_t most_dimensions = 64;     // PyTorch's own limit

// The opcodes that protocols 2 to 5 write.
enum Opcode : uint8_t {
  MARK = '(',
  STOP = '.',
  POP = '0',
  POP_MARK = '1',
  DUP = '2',
  NONE = 'N',
  NEWTRUE = 0x88,
  NEWFALSE = 0x89,
  BININT = 'J',
  BININT1 = 'K',
  BININT2 = 'M',
  LONG1 = 0x8a,
  LONG4 = 0x8b,
  BINFLOAT = 'G',
  SHORT_BINSTRING = 'U',
  BINSTRING = 'T',
  BINUNICODE = 'X',
  SHORT_BINUNICODE = 0x8c,
  BINUNICODE8 = 0x8d,
  SHORT_BINBYTES = 'C',
  BINBYTES = 'B',
  BINBYTES8 = 0x8e,
  BYTEARRAY8 = 0x96,
  EMPTY_LIST = ']',
  APPEND = 'a',
  APPENDS = 'e',
  LIST = 'l',
  EMPTY_TUPLE = ')',
  TUPLE1 = 0x85,
  TUPLE2 = 0x86,
  TUPLE3 = 0x87,
  TUPLE = 't',
  EMPTY_DICT = '}',
  SETITEM = 's',
  SETITEMS = 'u',
  DICT = 'd',
  EMPTY_SET = 0x8f,
  ADDITEMS = 0x90,
  FROZENSET = 0x91,
  BINGET = 'h',
  LONG_BINGET = 'j',
  BINPUT = 'q',
  LONG_BINPUT = 'r',
  MEMOIZE = 0x94,
  GLOBAL = 'c',
  STACK_GLOBAL = 0x93,
  REDUCE = 'R',
  NEWOBJ = 0x81,
  NEWOBJ_EX = 0x92,
  BUILD = 'b',
  BINPERSID = 'Q',
  PROTO = 0x80,
  FRAME = 0x95,
};

const std::map<std::string, DType> storage_types{
    {"torch.DoubleStorage", DType::f64}, {"torch.FloatStorage", DType::f32},
    {"torch.HalfStorage", DType::f16},   {"torch.BFloat16Storage", DType::bf16},
    {"torch.LongStorage", DType::i64},   {"torch.IntStorage", DType::i32},
    {"torch.ShortStorage", DType::i16},  {"torch.CharStorage", DType::i8},
    {"torch.ByteStorage", DType::u8},    {"torch.BoolStorage", DType::boolean},
    {"torch.UntypedStorage", DType::u8}, {"torch.storage.UntypedStorage", DType::u8},
};

const std::set<std::string> callables{"collections.OrderedDict",
                                      "torch._utils._rebuild_tensor_v2",
                                      "torch._utils._rebuild_tensor",
                                      "torch._utils._rebuild_parameter",
                                      "torch.Size",
                                      "torch.device",
                                      "argparse.Namespace"};

// What configurations hold: torch.float32 and the like, kept as texts.
const std::set<std::string> element_types{"torch.float64", "torch.float32", "torch.float16", "torch.bfloat16",
                                          "torch.int64",   "torch.int32",   "torch.int16",   "torch.int8",
                                          "torch.uint8",   "torch.bool"};

bool is_utf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i++]);
    if (lead < 0x80) continue;
    const int more = lead >= 0xf0 ? 3 : lead >= 0xe0 ? 2 : 1;
    if (lead < 0xc2 || lead > 0xf4) return false;
    if (text.size() - i < static_cast<size_t>(more)) return false;
    const auto second = static_cast<unsigned char>(text[i]);
    if ((lead == 0xe0 && second < 0xa0) || (lead == 0xed && second > 0x9f)) return false;
    if ((lead == 0xf0 && second < 0x90) || (lead == 0xf4 && second > 0x8f)) return false;
    for (int k = 0; k < more; ++k) {
      if ((static_cast<unsigned char>(text[i++]) & 0xc0) != 0x80) return false;
    }
  }
  return true;
}

}  // namespace

void Unpickler::fail_damaged(const std::string& what) {
  fail(Kind::model, "{}: byte {} of its pickle: {}; the file is damaged or cut off, fetch it again", where_, position_,
       what);
}

const PickledValue& Unpickler::read() {
  stack_.clear();
  marks_.clear();
  memo_.clear();
  while (step()) {
  }
  return *pop();
}

bool Unpickler::step() {
  const auto opcode = static_cast<uint8_t>(take(1)[0]);
  if (opcode == STOP) return false;
  if (opcode == PROTO) {
    const auto protocol = take_number(1);
    GRAFT_CHECK(model, protocol >= 2 && protocol <= 5,
                "{}: its pickle has protocol {}, graft reads 2 to 5; save it again with torch.save", where_, protocol);
    return true;
  }
  if (opcode == FRAME) return take(8), true;
  if (step_constant(opcode) || step_container(opcode) || step_memory(opcode) || step_object(opcode)) return true;
  fail_damaged(fmt::format("opcode 0x{:02x} is not one that torch.save writes", opcode));
}

bool Unpickler::step_constant(uint8_t opcode) {
  const auto text = [&](Type type, int size_bytes) { push(make_text(type, take(take_number(size_bytes)))); };
  switch (opcode) {
    case NONE:
      push(make(Type::none));
      return true;
    case NEWTRUE:
    case NEWFALSE:
      push(make(Type::boolean));
      top()->integer = opcode == NEWTRUE;
      return true;
    case BININT:
      push(make_integer(take(4)));
      return true;
    case BININT1:
    case BININT2:
      push(make(Type::integer));
      top()->integer = take_number(opcode == BININT1 ? 1 : 2);
      return true;
    case LONG1:
      push(make_integer(take(take_number(1))));
      return true;
    case LONG4:
      push(make_integer(take(take_number(4))));
      return true;
    case BINFLOAT: {
      uint64_t bits = 0;
      for (const char byte : take(8)) bits = bits << 8 | static_cast<unsigned char>(byte);
      push(make(Type::real));
      std::memcpy(&top()->real, &bits, 8);
      return true;
    }
    case SHORT_BINUNICODE:
      text(Type::text, 1);
      return true;
    case BINUNICODE:
      text(Type::text, 4);
      return true;
    case BINUNICODE8:
      text(Type::text, 8);
      return true;
    case SHORT_BINSTRING:
    case SHORT_BINBYTES:
      text(Type::bytes, 1);
      break;
    case BINSTRING:
    case BINBYTES:
      text(Type::bytes, 4);
      break;
    case BINBYTES8:
    case BYTEARRAY8:
      text(Type::bytes, 8);
      break;
    default:
      return false;
  }
  // Python 2 wrote its texts so.
  if ((opcode == SHORT_BINSTRING || opcode == BINSTRING) && is_utf8(top()->text)) top()->type = Type::text;
  return true;
}

bool Unpickler::step_container(uint8_t opcode) {
  switch (opcode) {
    case EMPTY_LIST:
    case EMPTY_SET:
      push(make(Type::list));
      return true;
    case EMPTY_TUPLE:
      push(make(Type::tuple));
      return true;
    case EMPTY_DICT:
      push(make(Type::dictionary));
      return true;
    case MARK:
      marks_.push_back(stack_.size());
      return true;
    case TUPLE1:
    case TUPLE2:
    case TUPLE3: {
      std::vector<Value*> items(opcode - TUPLE1 + 1);
      for (size_t i = items.size(); i-- > 0;) items[i] = pop();
      push_tuple(std::move(items));
      return true;
    }
    case TUPLE:
      push_tuple(pop_to_mark());
      return true;
    case LIST:
    case FROZENSET: {
      auto items = pop_to_mark();
      push(make(Type::list));
      append(top(), std::move(items), Type::list);
      return true;
    }
    case DICT: {
      auto items = pop_to_mark();
      push(make(Type::dictionary));
      append(top(), std::move(items), Type::dictionary);
      return true;
    }
    case APPEND: {
      auto* item = pop();
      append(top(), {item}, Type::list);
      return true;
    }
    case SETITEM: {
      auto* value = pop();
      auto* key = pop();
      append(top(), {key, value}, Type::dictionary);
      return true;
    }
    case APPENDS:
    case ADDITEMS:
    case SETITEMS: {
      auto items = pop_to_mark();
      append(top(), std::move(items), opcode == SETITEMS ? Type::dictionary : Type::list);
      return true;
    }
    default:
      return false;
  }
}

bool Unpickler::step_memory(uint8_t opcode) {
  switch (opcode) {
    case POP:
      if (!marks_.empty() && marks_.back() == stack_.size()) marks_.pop_back();
      else pop();
      return true;
    case POP_MARK:
      pop_to_mark();
      return true;
    case DUP:
      push(top());
      return true;
    case BINGET:
      recall(take_number(1));
      return true;
    case LONG_BINGET:
      recall(take_number(4));
      return true;
    case BINPUT:
      remember(take_number(1));
      return true;
    case LONG_BINPUT:
      remember(take_number(4));
      return true;
    case MEMOIZE:
      remember(memo_.size());
      return true;
    default:
      return false;
  }
}

bool Unpickler::step_object(uint8_t opcode) {
  switch (opcode) {
    case GLOBAL: {
      const std::string module(take_line());
      push_global(module, std::string(take_line()));
      return true;
    }
    case STACK_GLOBAL: {
      const auto* name = pop();
      const auto* module = pop();
      if (name->type != Type::text || module->type != Type::text) fail_damaged("a global without a name");
      push_global(module->text, name->text);
      return true;
    }
    case REDUCE:
      reduce(false);
      return true;
    case NEWOBJ_EX:
      if (const auto* keywords = pop(); keywords->type != Type::dictionary || !keywords->items.empty()) {
        fail_damaged("an object with keyword arguments");
      }
      reduce(true);
      return true;
    case NEWOBJ:
      reduce(true);
      return true;
    case BUILD:
      build();
      return true;
    case BINPERSID:
      load_persistent();
      return true;
    default:
      return false;
  }
}

std::string_view Unpickler::take(uint64_t size) {
  if (size > bytes_.size() - position_) {
    fail_damaged(fmt::format("{} more bytes are needed, {} are left", size, bytes_.size() - position_));
  }
  const auto taken = bytes_.substr(position_, size);
  position_ += size;
  return taken;
}

uint64_t Unpickler::take_number(int size) {
  uint64_t number = 0;
  const auto taken = take(size);
  for (int i = size; i-- > 0;) number = number << 8 | static_cast<unsigned char>(taken[i]);
  return number;
}

std::string_view Unpickler::take_line() {
  const auto end = bytes_.find('\n', position_);
  if (end == std::string_view::npos) fail_damaged("a line without an end");
  const auto line = take(end - position_);
  take(1);
  return line;
}

PickledValue* Unpickler::make(Type type) {
  GRAFT_CHECK(model, values_.size() < most_values,
              "{}: its pickle holds more than {} values; this is no file of weights", where_, most_values);
  values_.emplace_back();
  values_.back().type = type;
  return &values_.back();
}

PickledValue* Unpickler::make_text(Type type, std::string_view text) {
  if (type == Type::text && !is_utf8(text)) fail_damaged("a text that is not UTF-8");
  auto* value = make(type);
  value->text = text;
  return value;
}

/// Two's complement. What does not fit 64 bits stays a run of bytes: no number that graft uses is so large.
PickledValue* Unpickler::make_integer(std::string_view little_endian) {
  if (little_endian.size() > 8) return make_text(Type::bytes, little_endian);
  auto* value = make(Type::integer);
  if (little_endian.empty()) return value;
  uint64_t bits = little_endian.back() < 0 ? ~uint64_t{0} : 0;
  for (size_t i = little_endian.size(); i-- > 0;) bits = bits << 8 | static_cast<unsigned char>(little_endian[i]);
  value->integer = static_cast<int64_t>(bits);
  return value;
}

PickledValue* Unpickler::top() {
  if (stack_.size() <= (marks_.empty() ? 0 : marks_.back())) fail_damaged("a value is missing");
  return stack_.back();
}

PickledValue* Unpickler::pop() {
  auto* value = top();
  stack_.pop_back();
  return value;
}

std::vector<PickledValue*> Unpickler::pop_to_mark() {
  if (marks_.empty()) fail_damaged("a mark is missing");
  std::vector<Value*> items(stack_.begin() + marks_.back(), stack_.end());
  stack_.resize(marks_.back());
  marks_.pop_back();
  return items;
}

void Unpickler::push_tuple(std::vector<Value*> items) {
  auto* tuple = make(Type::tuple);
  tuple->items = std::move(items);
  push(tuple);
}

void Unpickler::append(Value* target, std::vector<Value*> items, Type wanted) {
  if (target->type != wanted) fail_damaged("items for a value that holds none");
  if (wanted == Type::dictionary && items.size() % 2) fail_damaged("a key without a value");
  links_ += items.size();
  GRAFT_CHECK(model, links_ <= most_links, "{}: its pickle holds more than {} values; this is no file of weights",
              where_, most_links);
  target->items.insert(target->items.end(), items.begin(), items.end());
}

void Unpickler::remember(uint64_t index) { memo_[index] = top(); }

void Unpickler::recall(uint64_t index) {
  const auto found = memo_.find(index);
  if (found == memo_.end()) fail_damaged(fmt::format("value {} is recalled and was never kept", index));
  push(found->second);
}

void Unpickler::push_global(const std::string& module, const std::string& name) {
  const auto global = module + "." + name;
  if (element_types.contains(global)) return push(make_text(Type::text, global));
  if (storage_types.contains(global) || callables.contains(global)) return push(make_text(Type::global, global));
  GRAFT_CHECK(
      model, !module.starts_with("numpy"),
      "{}: it holds a numpy value (`{}`), graft reads tensors and plain values only; save the weights alone with "
      "torch.save(model.state_dict(), ...) or as safetensors",
      where_, global);
  fail(Kind::model,
       "{}: it wants to run code: it names `{}`, graft reads weights as data only; if you trust the file, load it in "
       "Python and save "
       "model.state_dict() as safetensors",
       where_, global);
}

void Unpickler::reduce(bool construct) {
  auto* arguments = pop();
  const auto* callable = pop();
  if (callable->type != Type::global || arguments->type != Type::tuple)
    fail_damaged("a call of something that is no function");
  const auto& items = arguments->items;
  const auto& name = callable->text;
  if (name == "collections.OrderedDict" || name == "argparse.Namespace") {
    auto* dictionary = make(Type::dictionary);
    if (name == "argparse.Namespace") dictionary->text = name;
    if (!items.empty()) {
      for (const auto* pair : argument(items, 0, Type::list)->items) {
        if (pair->items.size() != 2) fail_damaged("a dictionary of something that is no pair");
        append(dictionary, pair->items, Type::dictionary);
      }
    }
    return push(dictionary);
  }
  if (construct) fail_damaged(fmt::format("`{}` is no class", name));
  if (name.starts_with("torch._utils._rebuild_tensor")) return push(rebuild_tensor(items));
  if (name == "torch._utils._rebuild_parameter") {
    argument(items, 0, Type::tensor);
    return push(items[0]);
  }
  if (name == "torch.Size") {
    whole_numbers(argument(items, 0, Type::tuple));
    return push(items[0]);
  }
  if (name == "torch.device") {
    argument(items, 0, Type::text);
    return push(items[0]);
  }
  fail_damaged(fmt::format("a call of `{}`", name));
}

/// A namespace takes its fields. A state_dict carries `_metadata` (module versions): nothing that graft reads.
void Unpickler::build() {
  const auto* state = pop();
  auto* target = top();
  if (target->type != Type::dictionary) fail_damaged("attributes for a value that has none");
  if (target->text.empty()) return;
  if (state->type != Type::dictionary) fail_damaged("fields that are no dictionary");
  append(target, state->items, Type::dictionary);
}

/// ("storage", class, key, device, elements), in the older stream with a sixth item: None or (key, offset, elements) of a part.
void Unpickler::load_persistent() {
  const auto* id = pop();
  if (id->type != Type::tuple) fail_damaged("a storage without a name");
  const auto& items = id->items;
  const auto* kind = argument(items, 0, Type::text);
  const auto* type = argument(items, 1, Type::global);
  const auto& key = argument(items, 2, Type::text)->text;
  const auto elements = argument(items, 4, Type::integer)->integer;
  const auto known = storage_types.find(type->text);
  if (kind->text != "storage" || known == storage_types.end() || elements < 0) fail_damaged("a storage that is none");
  GRAFT_CHECK(model, items.size() < 6 || items[5]->type == Type::none,
              "{}: storage `{}` is a part of another, as torch before 0.4 wrote it; save it again with a newer torch",
              where_, key);
  const PickledStorage storage{known->second, static_cast<uint64_t>(elements), {}};
  const auto [kept, is_new] = storages_.emplace(key, storage);
  if (!is_new && (kept->second.dtype != storage.dtype || kept->second.elements != storage.elements)) {
    fail_damaged(fmt::format("storage `{}` has two types or sizes", key));
  }
  auto* value = make(Type::storage);
  value->storage = &kept->second;
  push(value);
}

PickledValue* Unpickler::rebuild_tensor(const std::vector<Value*>& arguments) {
  const auto* storage = argument(arguments, 0, Type::storage);
  auto* tensor = make(Type::tensor);
  tensor->storage = storage->storage;
  tensor->integer = argument(arguments, 1, Type::integer)->integer;
  tensor->shape = whole_numbers(argument(arguments, 2, Type::tuple));
  tensor->strides = whole_numbers(argument(arguments, 3, Type::tuple));
  if (tensor->integer < 0 || tensor->shape.size() != tensor->strides.size())
    fail_damaged("a tensor whose shape and strides disagree");
  return tensor;
}

std::vector<int64_t> Unpickler::whole_numbers(const Value* value) {
  if (value->items.size() > most_dimensions)
    fail_damaged(fmt::format("a tensor with {} dimensions", value->items.size()));
  std::vector<int64_t> numbers;
  for (const auto* item : value->items) {
    if (item->type != Type::integer || item->integer < 0)
      fail_damaged("a shape or stride that is no whole number from 0 on");
    numbers.push_back(item->integer);
  }
  return numbers;
}

const PickledValue* Unpickler::argument(const std::vector<Value*>& arguments, size_t index, Type type) {
  if (index >= arguments.size()) fail_damaged(fmt::format("argument {} is missing", index));
  const auto* value = arguments[index];
  const bool is_sequence = type == Type::tuple || type == Type::list;
  const bool fits = value->type == type || (is_sequence && (value->type == Type::tuple || value->type == Type::list));
  if (!fits) fail_damaged(fmt::format("argument {} is of another type than expected", index));
  return value;
}

}  // namespace graft::io
