#include "graft/io/safetensors.h"

#include <gtest/gtest.h>

#include "graft/core/error.h"
#include "graft/core/hash.h"
#include "graft/core/random.h"
#include "tests/fixtures.h"
#include "tests/io/fault.h"

namespace graft::io {
namespace {

using tests::fixture;
using tests::message_of;
using tests::read_text;
using tests::Scratch;
using tests::write_text;

std::string with_header(const std::string& header, const std::string& data = "", uint64_t claimed = 0) {
  std::string bytes(8, '\0');
  const uint64_t size = claimed ? claimed : header.size();
  for (int i = 0; i < 8; ++i) bytes[i] = static_cast<char>(size >> 8 * i);
  return bytes + header + data;
}

/// The message for a file with this content, without the path before it.
std::string refusal_of_header(const std::string& bytes) {
  const Scratch scratch;
  const auto path = scratch / "model.safetensors";
  write_text(path, bytes);
  const auto message = message_of([&] { read_safetensors(path); });
  const auto begin = path.string() + ": ";
  return message.starts_with(begin) ? message.substr(begin.size()) : message;
}

TensorView floats(const std::vector<float>& values, std::vector<int64_t> shape) {
  const auto owner = std::make_shared<std::vector<float>>(values);
  const char* data = reinterpret_cast<const char*>(owner->data());
  return {DType::f32, shape, row_major(shape), data, owner, data};
}

TEST(Safetensors, ReadsWhatTheReferenceWrote) {
  const auto file = read_safetensors(fixture("parity/bert-model/model/model.safetensors"));
  EXPECT_EQ(file.metadata.at("format"), "pt");
  const auto& view = file.tensors.at("embeddings.position_embeddings.weight");
  EXPECT_EQ(view.dtype, DType::f32);
  EXPECT_EQ(view.shape, (std::vector<int64_t>{24, 32}));
  EXPECT_EQ(view.strides, (std::vector<int64_t>{32, 1}));
  const auto inputs = read_safetensors(fixture("parity/bert-model/inputs.safetensors"));
  EXPECT_EQ(inputs.tensors.at("input_ids").dtype, DType::i64);
  EXPECT_TRUE(inputs.metadata.empty());
}

TEST(Safetensors, WritesTheBytesThatTheReferenceWrote) {
  const Scratch scratch;
  const auto source = fixture("parity/bert-model/model/model.safetensors");
  const auto hash = write_safetensors(scratch / "copy", read_safetensors(source).tensors);
  EXPECT_EQ(hash, sha256(read_text(source)));
  EXPECT_EQ(hash, sha256(read_text(scratch / "copy")));
}

TEST(Safetensors, WideTypesComeFirstAsInTheReference) {
  const Scratch scratch;
  const auto tensors = read_safetensors(fixture("parity/bert-model/inputs.safetensors")).tensors;
  write_safetensors(scratch / "copy", tensors, {{"format", "pt"}});
  const auto header = read_text(scratch / "copy").substr(8, 200);
  EXPECT_LT(header.find("attention_mask"), header.find("input_ids"));
  const auto again = read_safetensors(scratch / "copy").tensors;
  for (const auto& [name, view] : tensors) {
    const auto& copy = again.at(name);
    ASSERT_EQ(copy.shape, view.shape);
    const auto size = element_count(view.shape) * element_size(view.dtype);
    EXPECT_EQ(std::string_view(copy.data, size), std::string_view(view.data, size)) << name;
  }
}

TEST(Safetensors, EmptyTensorsScalarsAndStrangeNamesSurvive) {
  const Scratch scratch;
  const TensorMap tensors{
      {"scalar", floats({2.5f}, {})}, {"none", floats({}, {0, 3})}, {"a \"quoted\" ünit\n", floats({1, 2}, {2})}};
  write_safetensors(scratch / "a", tensors, {{"note", "kept"}});
  const auto file = read_safetensors(scratch / "a");
  EXPECT_EQ(file.metadata.at("note"), "kept");
  EXPECT_EQ(file.tensors.size(), 3u);
  EXPECT_EQ(file.tensors.at("none").shape, (std::vector<int64_t>{0, 3}));
  EXPECT_EQ(*reinterpret_cast<const float*>(file.tensors.at("scalar").data), 2.5f);
  write_safetensors(scratch / "b", {});
  EXPECT_TRUE(read_safetensors(scratch / "b").tensors.empty());
}

TEST(Safetensors, ATransposedViewIsNotWritten) {
  const Scratch scratch;
  auto view = floats({1, 2, 3, 4, 5, 6}, {2, 3});
  view.strides = {1, 2};
  EXPECT_NE(message_of([&] {
              write_safetensors(scratch / "a", {{"w", view}});
            }).find("`w` is not row-major: strides [1, 2], shape [2, 3]"),
            std::string::npos);
}

TEST(Safetensors, AFullDiskLeavesTheOldFile) {
  const Scratch scratch;
  write_text(scratch / "a", "old");
  const tests::Fault fault("enospc:4");
  EXPECT_NE(message_of([&] {
              write_safetensors(scratch / "a", {{"w", floats({1}, {1})}});
            }).find("No space left on device"),
            std::string::npos);
  EXPECT_EQ(read_text(scratch / "a"), "old");
}

TEST(Safetensors, WhatIsCutOffSaysSo) {
  EXPECT_EQ(refusal_of_header("abc"),
            "it has 3 bytes, a safetensors file has at least 8; the download was cut off, fetch it again");
  EXPECT_EQ(refusal_of_header(with_header("{}", "", 50)),
            "the header needs 50 bytes, the file ends after 2; the download was cut off, fetch it again");
  EXPECT_EQ(refusal_of_header(with_header(R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", "1234")),
            "the header describes 8 bytes of tensors, the file holds 4; the download was cut off, fetch it again");
}

TEST(Safetensors, WhatIsNoSafetensorsFileSaysSo) {
  EXPECT_EQ(refusal_of_header("version https://git-lfs.github.com/spec/v1"),
            "not a safetensors file: no header begins at byte 8; it may be an error page or a Git LFS pointer, fetch "
            "it again");
  EXPECT_EQ(refusal_of_header(with_header("{}", "", 200'000'000)),
            "the header claims 200000000 bytes, at most 100000000 are allowed; the file is damaged, fetch it again");
  EXPECT_EQ(refusal_of_header(std::string(8, '\0')), "the header is empty; the file is damaged, fetch it again");
  EXPECT_NE(refusal_of_header(with_header("{\"w\":")).find("the header is not JSON ("), std::string::npos);
  EXPECT_NE(refusal_of_header(with_header("{\"\xff\":1}")).find("the header is not JSON ("), std::string::npos);
}

TEST(Safetensors, BytesThatNoTensorOwnsAreRefused) {
  EXPECT_EQ(
      refusal_of_header(with_header(R"({"w":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})", "1234")),
      "the header describes 2 bytes of tensors, the file holds 4; what follows the tensors does not belong there");
  EXPECT_EQ(refusal_of_header(with_header(R"({"w":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}})", "1234")),
            "tensor `w` begins at byte 2 of the data, expected 0: tensors leave a hole; the file is damaged");
  EXPECT_EQ(
      refusal_of_header(with_header(
          R"({"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},"b":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}})",
          "1234")),
      "tensor `b` begins at byte 2 of the data, expected 3: tensors overlap; the file is damaged");
}

TEST(Safetensors, ShapesAndOffsetsMustAgree) {
  EXPECT_EQ(refusal_of_header(with_header(R"({"w":{"dtype":"F32","shape":[3],"data_offsets":[0,4]}})", "1234")),
            "tensor `w`: F32 of shape [3] does not fill the 4 bytes that its offsets span; the file is damaged");
  EXPECT_NE(
      refusal_of_header(with_header(R"({"w":{"dtype":"F32","shape":[4294967296,4294967296,4],"data_offsets":[0,0]}})"))
          .find("does not fill the 0 bytes"),
      std::string::npos);
  EXPECT_NE(
      refusal_of_header(with_header(R"({"w":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,0]}})"))
          .find("does not fill the 0 bytes"),
      std::string::npos);
  EXPECT_EQ(refusal_of_header(with_header(R"({"w":{"dtype":"U8","shape":[2],"data_offsets":[4,2]}})", "1234")),
            "tensor `w`: data_offsets are [4, 2], expected a begin and an end");
  EXPECT_EQ(refusal_of_header(with_header(R"({"w":{"dtype":"U8","shape":[-2],"data_offsets":[0,2]}})", "12")),
            "tensor `w`: `shape` holds -2, expected whole numbers from 0 on");
  EXPECT_EQ(refusal_of_header(with_header(R"({"w":{"dtype":"U8","data_offsets":[0,2]}})", "12")),
            "tensor `w`: `shape` is missing or no list; the file is damaged");
  EXPECT_EQ(refusal_of_header(with_header(R"({"w":7})")),
            "tensor `w`: `shape` is missing or no list; the file is damaged");
}

TEST(Safetensors, UnknownTypesAreNamed) {
  EXPECT_EQ(refusal_of_header(with_header(R"({"w":{"dtype":"F8_E4M3","shape":[1],"data_offsets":[0,1]}})", "1")),
            "tensor `w` has the type `F8_E4M3`, which graft does not read; it reads BOOL, U8, I8, I16, F16, BF16, I32, "
            "F32, F64, I64");
}

TEST(Safetensors, ATensorNamedTwiceIsRefused) {
  EXPECT_EQ(
      refusal_of_header(with_header(
          R"({"w":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"w":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})")),
      "the header names `w` twice; the file is damaged");
}

TEST(Safetensors, MetadataIsTextsOnly) {
  EXPECT_EQ(refusal_of_header(with_header(R"({"__metadata__":{"a":1}})")), "__metadata__.a is 1, expected a text");
  EXPECT_EQ(refusal_of_header(with_header(R"({"__metadata__":[]})")), "__metadata__ is [], expected names and texts");
}

TEST(Safetensors, DamageNeverCrashes) {
  const Scratch scratch;
  const auto whole = read_text(fixture("parity/llama-bf16-shards/model/model-00004-of-00004.safetensors"));
  Random random(1);
  for (int i = 0; i < 400; ++i) {
    auto bytes = whole;
    if (i % 2) bytes.resize(random.below(bytes.size()));
    else
      for (int k = 0; k < 3; ++k) bytes[random.below(900)] ^= static_cast<char>(1 << random.below(8));
    write_text(scratch / "a", bytes);
    try {
      read_safetensors(scratch / "a");
      EXPECT_EQ(i % 2, 0);
    } catch (const Error& e) {
      EXPECT_EQ(e.kind, Kind::model);
    }
  }
}

}  // namespace
}  // namespace graft::io
