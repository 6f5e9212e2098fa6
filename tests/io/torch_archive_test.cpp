#include "graft/io/torch_archive.h"

#include <gtest/gtest.h>

#include <cstring>

#include "graft/core/random.h"
#include "tests/fixtures.h"
#include "tests/io/archive_builder.h"

namespace graft::io {
namespace {

using namespace tests;

TorchArchive read_bytes(const std::string& bytes) {
  const Scratch scratch;
  write_text(scratch / "model.bin", bytes);
  return read_torch_archive(scratch / "model.bin");
}

/// The message for an archive with this content, without the path before it.
std::string refusal(const std::string& bytes) {
  const auto message = message_of([&] { read_bytes(bytes); });
  const auto begin = message.find("model.bin: ");
  return begin == std::string::npos ? message : message.substr(begin + 11);
}

void expect_refusal(const std::string& bytes, const std::string& part) {
  const auto message = refusal(bytes);
  EXPECT_NE(message.find(part), std::string::npos) << "expected: " << part << "\nfound: " << message;
}

template <class T>
T element(const TensorView& view, const std::vector<int64_t>& index) {
  int64_t offset = 0;
  for (size_t i = 0; i < index.size(); ++i) offset += index[i] * view.strides[i];
  T value;
  std::memcpy(&value, view.data + offset * sizeof(T), sizeof(T));
  return value;
}

constexpr const char* query = "bert.encoder.layer.0.attention.self.query.weight";

void check_bert(const TorchArchive& archive) {
  EXPECT_EQ(archive.tensors.size(), 48u);
  const auto& ids = archive.tensors.at("bert.embeddings.position_ids");
  EXPECT_EQ(ids.dtype, DType::i64);
  EXPECT_EQ(element<int64_t>(ids, {0, 23}), 23);
  const auto& decoder = archive.tensors.at("cls.predictions.decoder.weight");
  EXPECT_EQ(decoder.storage, archive.tensors.at("bert.embeddings.word_embeddings.weight").storage);
  EXPECT_NE(decoder.storage, ids.storage);
  EXPECT_EQ(archive.tensors.at(query).strides, (std::vector<int64_t>{1, 32}));
}

// Expected values: read from the files with Python's pickle and struct.
TEST(TorchArchive, ReadsTheZipEncoding) {
  const auto archive = read_torch_archive(fixture("parity/bert-legacybin/model/pytorch_model.bin"));
  check_bert(archive);
  const auto& weight = archive.tensors.at(query);
  EXPECT_EQ(element<float>(weight, {0, 0}), -0.4264848828315735f);
  EXPECT_EQ(element<float>(weight, {0, 1}), 0.11185768991708755f);
  EXPECT_EQ(element<float>(weight, {1, 0}), -0.14708471298217773f);
  EXPECT_EQ(element<float>(archive.tensors.at("cls.predictions.decoder.weight"), {96, 31}), 0.2284565269947052f);
}

TEST(TorchArchive, ReadsTheOlderStream) {
  const auto archive = read_torch_archive(fixture("parity/bert-legacypickle/model/pytorch_model.bin"));
  check_bert(archive);
  const auto& weight = archive.tensors.at(query);
  EXPECT_EQ(element<float>(weight, {0, 1}), -0.3106420040130615f);
  EXPECT_EQ(element<float>(weight, {1, 0}), 0.026234207674860954f);
  EXPECT_EQ(element<float>(weight, {31, 31}), 0.16008178889751434f);
  EXPECT_EQ(element<float>(archive.tensors.at("cls.predictions.bias"), {1}), -0.15340588986873627f);
}

TEST(TorchArchive, TheOwnerOutlivesTheArchive) {
  TensorView view;
  {
    auto archive = read_torch_archive(fixture("parity/bert-legacybin/model/pytorch_model.bin"));
    view = archive.tensors.at(query);
  }
  EXPECT_EQ(element<float>(view, {0, 0}), -0.4264848828315735f);
}

TEST(TorchArchive, NestedValuesGetDottedPaths) {
  const auto weight = tensor(storage("ShortStorage", "0", 3), 1, {2}, {1});
  const auto parameter = global("torch._utils", "_rebuild_parameter") + tuple({weight, "\x88", "N"}) + "R";
  const auto options = global("argparse", "Namespace") + ")\x81" + dictionary({{"lr", "G\x3f\xe0\0\0\0\0\0\0"s}}) + "b";
  const auto state = global("collections", "OrderedDict") + ")R(" + text("w") + parameter + "u" +
                     dictionary({{"_metadata", "}"}}) + "b";
  const auto archive =
      read_bytes(tests::archive(dictionary({{"state_dict", state},
                                            {"epoch", "K\x07"},
                                            {"args", options},
                                            {"names", "](" + text("a") + text("b") + "e"},
                                            {"size", global("torch", "Size") + tuple({wholes({2, 3})}) + "R"},
                                            {"type", global("torch", "float16")},
                                            {"best", "N"}}),
                                {{"0", number(0x000300020001, 6)}}));
  ASSERT_EQ(archive.tensors.size(), 1u);
  EXPECT_EQ(element<int16_t>(archive.tensors.at("state_dict.w"), {1}), 3);
  EXPECT_EQ(archive.sections, (std::vector<std::string>{"state_dict", "args"}));
  EXPECT_EQ(archive.others.dump(),
            R"({"args.lr":0.5,"epoch":7,"names.0":"a","names.1":"b","size.0":2,"size.1":3,"type":"torch.float16"})");
}

TEST(TorchArchive, ReadsProtocolFourAndZip64) {
  const auto pickle = "\x80\x04\x95"s + number(40, 8) + "}\x94\x8c\x01" +
                      "n\x94\x8c\x05torch\x94\x8c\x04Size\x94\x93\x94K\x02K\x03\x86\x94\x85\x94R\x94s.";
  ZipOptions options;
  options.zip64 = true;
  EXPECT_EQ(read_bytes(zip({{"m/data.pkl", pickle}}, options)).others.dump(), R"({"n.0":2,"n.1":3})");
}

TEST(TorchArchive, CodeIsNeverRun) {
  expect_refusal(archive(global("os", "system") + tuple({text("true")}) + "R"),
                 "it wants to run code: it names `os.system`, graft reads weights as data only; if you trust the file, "
                 "load it in Python and save "
                 "model.state_dict() as safetensors");
  expect_refusal(archive("\x8c\x08"
                         "builtins\x8c\x04"
                         "eval\x93"),
                 "it names `builtins.eval`");
  expect_refusal(archive(global("numpy.core.multiarray", "scalar")),
                 "it holds a numpy value (`numpy.core.multiarray.scalar`)");
  expect_refusal(archive(global("torch", "ComplexFloatStorage")), "it names `torch.ComplexFloatStorage`");
}

TEST(TorchArchive, WhatIsNoArchiveSaysSo) {
  EXPECT_EQ(refusal("hello"),
            "not a PyTorch archive (5 bytes, neither a zip archive nor a stream of torch.save); fetch it again");
  EXPECT_EQ(refusal("version https://git-lfs.github.com/spec/v1\n"),
            "a Git LFS pointer, not the weights; fetch the file itself (`git lfs pull` or `graft pull`)");
  EXPECT_EQ(refusal(zip({{"readme", "text"}})),
            "a zip archive, but without the record `data.pkl` that torch.save writes");
  EXPECT_EQ(
      refusal(zip({{"m/data.pkl", pickled("}")}, {"m/constants.pkl", ""}})),
      "a TorchScript program, not a file of weights; load it in Python with torch.jit.load and save its state_dict()");
  EXPECT_EQ(refusal(archive("K\x01")),
            "it holds neither a dictionary nor a tensor; save the weights with torch.save(model.state_dict(), ...)");
}

TEST(TorchArchive, CompressedRecordsAreRefused) {
  ZipOptions options;
  options.method = 8;
  expect_refusal(zip({{"m/data.pkl", pickled("}")}}, options), "record `m/data.pkl` is compressed or encrypted");
}

TEST(TorchArchive, BigEndianFilesAreRefused) {
  EXPECT_EQ(refusal(zip({{"m/data.pkl", pickled("}")}, {"m/byteorder", "big"}})),
            "written on a big-endian machine (byteorder `big`); save it again on a little-endian one");
}

std::string stream(const std::string& system, const std::string& object, const std::string& keys,
                   const std::string& data, int version = 1001) {
  return "\x80\x02\x8a\x0al\xfc\x9c\x46\xf9 j\xa8P\x19."s + pickled("M" + number(version, 2)) + pickled(system) +
         pickled(object) + pickled(keys) + data;
}

TEST(TorchArchive, WrongStreamsAreRefused) {
  const auto little = dictionary({{"little_endian", "\x88"}}), big = dictionary({{"little_endian", "\x89"}});
  const auto object = dictionary({{"w", tensor(storage("ByteStorage", "k", 2), 0, {2}, {1})}});
  const auto keys = "](" + text("k") + "e";
  EXPECT_EQ(read_bytes(stream(little, object, keys, number(2, 8) + "ab")).tensors.at("w").data[1], 'b');
  EXPECT_EQ(refusal(stream(big, object, keys, "")),
            "written on a big-endian machine (little_endian is false); save it again on a little-endian one");
  expect_refusal(stream(little, object, keys, "", 7), "the stream has version 7, graft reads 1001");
  EXPECT_EQ(refusal(stream(little, object, keys, "abc")),
            "it ends before storage `k`; the file is cut off, fetch it again");
  EXPECT_EQ(refusal(stream(little, object, keys, number(3, 8) + "abc")),
            "storage `k` should have 2 elements, found 3; the file is damaged");
  EXPECT_EQ(refusal(stream(little, object, keys, number(2, 8) + "a")),
            "storage `k` should have 2 bytes, found 1; the file is damaged or cut off, fetch it again");
  EXPECT_EQ(refusal(stream(little, object, "]", "")), "storage `k` is missing; the file is damaged");
  EXPECT_EQ(refusal(stream(little, object, "](" + text("z") + "e", "")),
            "storage `z` belongs to no tensor; the file is damaged");
  const auto part = tuple({text("storage"), global("torch", "ByteStorage"), text("k"), text("cpu"), whole(2),
                           tuple({text("v"), whole(0), whole(1)})}) +
                    "Q";
  expect_refusal(stream(little, dictionary({{"w", tensor(part, 0, {2}, {1})}}), keys, ""),
                 "storage `k` is a part of another, as torch before 0.4 wrote it");
}

TEST(TorchArchive, AViewMustFitItsStorage) {
  const auto with = [](int64_t offset, std::vector<int64_t> shape, std::vector<int64_t> strides) {
    return archive(dictionary({{"w", tensor(storage("FloatStorage", "0", 4), offset, shape, strides)}}),
                   {{"0", std::string(16, '\0')}});
  };
  EXPECT_EQ(refusal(with(0, {2, 2}, {2, 1})), "");
  EXPECT_EQ(refusal(with(4, {0}, {1})), "");
  EXPECT_EQ(refusal(with(1, {2, 2}, {2, 1})),
            "tensor `w` of shape [2, 2] and strides [2, 1] from element 1 on does not fit its storage of 4 elements; "
            "the file is damaged");
  expect_refusal(with(0, {INT64_MAX, INT64_MAX}, {1, 1}), "does not fit its storage");
  expect_refusal(with(0, {2}, {INT64_MAX}), "does not fit its storage");
  expect_refusal(with(INT64_MAX, {2}, {INT64_MAX}), "does not fit its storage");
  expect_refusal(with(0, {int64_t{1} << 40}, {0}),
                 "repeats 4 stored elements to shape [1099511627776]; save it again as a dense tensor");
  expect_refusal(with(-1, {1}, {1}), "a tensor whose shape and strides disagree");
  expect_refusal(with(0, {1, 1}, {1}), "a tensor whose shape and strides disagree");
  expect_refusal(with(0, {-1}, {1}), "a shape or stride that is no whole number from 0 on");
  expect_refusal(with(0, std::vector<int64_t>(65, 1), std::vector<int64_t>(65, 1)), "a tensor with 65 dimensions");
}

TEST(TorchArchive, StoragesMustBeThereAndLargeEnough) {
  const auto object = dictionary({{"w", tensor(storage("FloatStorage", "0", 4), 0, {4}, {1})}});
  EXPECT_EQ(refusal(archive(object, {{"0", "123"}})),
            "storage `0` should have 16 bytes, found 3; the file is damaged or cut off, fetch it again");
  EXPECT_EQ(refusal(archive(object)), "the record `m/data/0` of a tensor is missing; the file is damaged");
  const auto endless = dictionary({{"w", tensor(storage("FloatStorage", "0", INT64_MAX), 0, {4}, {1})}});
  EXPECT_EQ(refusal(archive(endless, {{"0", "123"}})),
            "storage `0` claims 9223372036854775807 elements; the file is damaged");
  const auto twice = dictionary({{"v", tensor(storage("FloatStorage", "0", 4), 0, {4}, {1})},
                                 {"w", tensor(storage("LongStorage", "0", 2), 0, {2}, {1})}});
  expect_refusal(archive(twice), "storage `0` has two types or sizes");
}

TEST(TorchArchive, WrongPicklesAreRefused) {
  const std::vector<std::pair<std::string, std::string>> cases{
      {"", "a value is missing"},
      {"}K\x01s", "a value is missing"},
      {"t", "a mark is missing"},
      {"(}s", "a value is missing"},
      {"}(K\x01u", "a key without a value"},
      {"K\x01K\x02"
       "a",
       "items for a value that holds none"},
      {"h\x05", "value 5 is recalled and was never kept"},
      {"\xfe", "opcode 0xfe is not one that torch.save writes"},
      {"X" + number(900, 4), "900 more bytes are needed, 1 are left"},
      {"cos", "a line without an end"},
      {"X" + number(1, 4) + "\xff", "a text that is not UTF-8"},
      {"}}R", "a call of something that is no function"},
      {"}}b"
       "]}b",
       "attributes for a value that has none"},
      {global("argparse", "Namespace") + ")R]b", "fields that are no dictionary"},
      {"NQ", "a storage without a name"},
      {tuple({text("x"), global("torch", "Size"), text("k"), text("cpu"), whole(1)}) + "Q", "a storage that is none"},
      {tuple({text("storage"), text("torch"), text("k")}) + "Q", "argument 1 is of another type than expected"},
      {global("torch", "Size") + ")R", "argument 0 is missing"},
      {global("torch", "Size") + ")\x81", "`torch.Size` is no class"},
      {global("torch", "FloatStorage") + ")R", "a call of `torch.FloatStorage`"},
      {global("argparse", "Namespace") + ")" + dictionary({{"a", "N"}}) + "\x92", "an object with keyword arguments"},
      {"NN\x93", "a global without a name"},
      {global("collections", "OrderedDict") + tuple({"]" + tuple({"N"}) + "a"}) + "R",
       "a dictionary of something that is no pair"},
  };
  for (const auto& [object, sentence] : cases)
    expect_refusal(archive(object), sentence + "; the file is damaged or cut off, fetch it again");
  expect_refusal(zip({{"data.pkl", "\x80\x01}."}}),
                 "its pickle has protocol 1, graft reads 2 to 5; save it again with torch.save");
  expect_refusal(archive("}Nq\x01K\x01s"), "a key that is neither a text nor a whole number");
}

TEST(TorchArchive, CyclesAndDeepNestingEnd) {
  expect_refusal(archive("]q\x01h\x01"
                         "a"),
                 "is nested deeper than 64 levels; this is no file of weights");
  std::string deep;
  for (int i = 0; i < 200000; ++i) deep += "]";
  for (int i = 1; i < 200000; ++i) deep += "a";
  expect_refusal(archive(deep), "is nested deeper than 64 levels");
}

TEST(TorchArchive, AFileThatMultipliesItselfIsRefused) {
  std::string doubling =
      "]K\x01"
      "a";
  for (int i = 0; i < 40; ++i)
    doubling = doubling +
               "q\x01"
               "0](h\x01h\x01"
               "e";
  expect_refusal(archive(doubling), "its names take more than 256 MiB; this is no file of weights");
  std::string wide = "](" + std::string(100'000, 'N') + "eq\x01" + global("collections", "OrderedDict") +
                     "q\x02"
                     "0";
  std::string pairs = "](";
  for (int i = 0; i < 1000; ++i) pairs += "h\x03";
  wide = "K\x01K\x01\x86q\x03" + pairs + "eq\x04" + global("collections", "OrderedDict") + "q\x02";
  for (int i = 0; i < 9000; ++i) wide += "0h\x02h\x04\x85R";
  expect_refusal(archive(wide), "its pickle holds more than 16000000 values; this is no file of weights");
  expect_refusal(archive(std::string(4'000'001, ')')),
                 "its pickle holds more than 4000000 values; this is no file of weights");
}

void damage(const std::string& whole, int rounds, size_t first) {
  const Scratch scratch;
  const auto path = scratch / "model.bin";
  Random random(7);
  for (int i = 0; i < rounds; ++i) {
    auto bytes = whole;
    if (i % 3 == 0) bytes.resize(random.below(bytes.size()));
    else
      for (int k = 0; k < 2; ++k)
        bytes[i % 3 == 1 ? random.below(first) : bytes.size() - 1 - random.below(4000)] ^=
            static_cast<char>(1 << random.below(8));
    write_text(path, bytes);
    try {
      read_torch_archive(path);
      EXPECT_NE(i % 3, 0) << bytes.size();
    } catch (const Error& e) {
      EXPECT_EQ(e.kind, Kind::model);
    }
  }
}

TEST(TorchArchive, DamageNeverCrashes) {
  damage(read_text(fixture("parity/bert-legacybin/model/pytorch_model.bin")), 900, 9000);
  damage(read_text(fixture("parity/bert-legacypickle/model/pytorch_model.bin")), 900, 9000);
}

TEST(TorchArchive, ADamagedDirectoryIsASentence) {
  expect_refusal(
      "PK\x03\x04 and nothing else",
      "the archive is damaged or cut off: its directory, which stands at the end, is missing; fetch it again");
  const auto good = archive("}");
  const auto replaced = [&](const std::string& from, const std::string& to, size_t after = 4) {
    auto bytes = good;
    return bytes.replace(bytes.find(from, after), from.size(), to);
  };
  expect_refusal(replaced("PK\x01\x02", "XXXX"), "no directory entry at byte ");
  expect_refusal(replaced("PK\x03\x04", "XXXX"), "no record at byte ");
}

}  // namespace
}  // namespace graft::io
