#include "graft/io/checkpoint.h"

#include <gtest/gtest.h>

#include "graft/io/safetensors.h"
#include "tests/fixtures.h"
#include "tests/io/archive_builder.h"

namespace graft::io {
namespace {

using namespace tests;

TensorView byte_tensor() {
  static const char data[] = "x";
  return {DType::u8, {1}, {1}, data, nullptr, data};
}

void write_tensors(const fs::path& path, const std::vector<std::string>& names) {
  TensorMap tensors;
  for (const auto& name : names) tensors[name] = byte_tensor();
  write_safetensors(path, tensors);
}

void write_index(const Scratch& scratch, const std::string& map) {
  write_text(scratch / "model.safetensors.index.json", R"({"weight_map":)" + map + "}");
}

std::string small_archive(const std::string& name) {
  return archive(dictionary({{name, tensor(storage("ByteStorage", "0", 1), 0, {1}, {1})}}), {{"0", "x"}});
}

std::vector<std::string> names_of(const Checkpoint& checkpoint) {
  std::vector<std::string> names;
  for (const auto& [name, view] : checkpoint.tensors) names.push_back(name);
  return names;
}

std::string refusal_at(const fs::path& path) {
  return message_of([&] { read_checkpoint(path); });
}

TEST(Checkpoint, ReadsThePublishedLayouts) {
  EXPECT_EQ(read_checkpoint(fixture("parity/bert-model/model")).files.size(), 1u);
  const auto archive = read_checkpoint(fixture("parity/bert-legacypickle/model"));
  EXPECT_FALSE(archive.safe);
  EXPECT_EQ(archive.tensors.size(), 48u);
  const auto sharded = read_checkpoint(fixture("parity/llama-bf16-shards/model"));
  EXPECT_TRUE(sharded.safe);
  EXPECT_EQ(sharded.files.size(), 5u);
  EXPECT_EQ(sharded.tensors.at("lm_head.weight").dtype, DType::bf16);
  EXPECT_EQ(read_checkpoint(fixture("parity/llama-bf16-shards/model/model.safetensors.index.json")).tensors.size(),
            sharded.tensors.size());
}

TEST(Checkpoint, TheOrderIsSafetensorsFirst) {
  const Scratch scratch;
  write_text(scratch / "other.bin", small_archive("other"));
  write_text(scratch / "training_args.bin", "");
  EXPECT_EQ(names_of(read_checkpoint(scratch.path)), std::vector<std::string>{"other"});
  write_tensors(scratch / "weights.safetensors", {"only"});
  EXPECT_EQ(names_of(read_checkpoint(scratch.path)), std::vector<std::string>{"only"});
  write_text(scratch / "pytorch_model.bin", small_archive("bin"));
  EXPECT_EQ(names_of(read_checkpoint(scratch.path)), std::vector<std::string>{"bin"});
  write_tensors(scratch / "model.safetensors", {"safe"});
  EXPECT_EQ(names_of(read_checkpoint(scratch.path)), std::vector<std::string>{"safe"});
}

TEST(Checkpoint, OneOuterDictionaryIsUnwrapped) {
  const Scratch scratch;
  const auto weight = tensor(storage("ByteStorage", "0", 1), 0, {1}, {1});
  const auto inner = dictionary({{"model.w", weight}}), optimizer = dictionary({{"moment", weight}});
  for (const auto* name : {"state_dict", "model", "model_state_dict", "teacher"}) {
    write_text(scratch / "a.pth",
               archive(dictionary({{"optimizer", optimizer}, {name, inner}, {"epoch", "K\x01"}}), {{"0", "x"}}));
    EXPECT_EQ(names_of(read_checkpoint(scratch / "a.pth")), std::vector<std::string>{"model.w"}) << name;
  }
  write_text(scratch / "a.pth", archive(inner, {{"0", "x"}}));
  EXPECT_EQ(names_of(read_checkpoint(scratch / "a.pth")), std::vector<std::string>{"model.w"});
}

TEST(Checkpoint, ADictionaryInADictionaryAndWrappersAreTakenOff) {
  const Scratch scratch;
  const auto weight = tensor(storage("ByteStorage", "0", 1), 0, {1}, {1});
  const auto student = dictionary({{"w", weight}}),
             teacher = dictionary({{"module.backbone.w", weight}, {"module.head.v", weight}});
  write_text(scratch / "a.pth", archive(dictionary({{"student", student}, {"teacher", teacher}}), {{"0", "x"}}));
  const auto dino = read_checkpoint(scratch / "a.pth");
  EXPECT_EQ(names_of(dino), (std::vector<std::string>{"head.v", "w"}));
  EXPECT_EQ(dino.name_in_file("w"), "module.backbone.w");
  EXPECT_EQ(dino.name_in_file("head.v"), "module.head.v");
  EXPECT_EQ(dino.name_in_file("new.v"), "module.new.v");
  const auto nested = dictionary({{"state_dict", student}, {"epoch", "K\x01"}});
  write_text(scratch / "a.pth", archive(dictionary({{"model", nested}}), {{"0", "x"}}));
  EXPECT_EQ(names_of(read_checkpoint(scratch / "a.pth")), std::vector<std::string>{"w"});
  // Not before every key: a name like another.
  write_tensors(scratch / "a.safetensors", {"module.w", "v"});
  EXPECT_EQ(names_of(read_checkpoint(scratch / "a.safetensors")), (std::vector<std::string>{"module.w", "v"}));
  write_tensors(scratch / "a.safetensors", {"backbone.w", "w"});
  EXPECT_EQ(names_of(read_checkpoint(scratch / "a.safetensors")), (std::vector<std::string>{"backbone.w", "w"}));
}

TEST(Checkpoint, WhatIsMissingIsNamed) {
  const Scratch scratch;
  EXPECT_EQ(
      refusal_at(scratch / "none"),
      (scratch / "none").string() + ": no such file or folder; fetch the model with `graft pull` or correct the path");
  EXPECT_NE(refusal_at(scratch.path).find("the folder has nothing"), std::string::npos);
  write_text(scratch / "config.json", "{}");
  EXPECT_EQ(
      refusal_at(scratch.path),
      scratch.path.string() +
          ": no weights found (model.safetensors, pytorch_model.bin, their indexes, or one *.safetensors, *.bin, *.pt, "
          "*.pth or *.th); the folder has config.json");
  write_text(scratch / "a.pt", "");
  write_text(scratch / "b.bin", "");
  EXPECT_EQ(refusal_at(scratch.path),
            scratch.path.string() + ": several files may be the weights: a.pt, b.bin; name one of them");
  write_text(scratch / "a.pt", archive("}"));
  EXPECT_EQ(refusal_at(scratch / "a.pt"),
            (scratch / "a.pt").string() + ": it holds no tensor; is it the file of weights?");
}

TEST(Checkpoint, AShardThatIsMissingIsNamed) {
  const Scratch scratch;
  const auto index = (scratch / "model.safetensors.index.json").string();
  write_tensors(scratch / "model-00001-of-00002.safetensors", {"a"});
  write_index(scratch, R"({"a":"model-00001-of-00002.safetensors"})");
  EXPECT_EQ(refusal_at(scratch.path),
            index +
                ": shard model-00002-of-00002.safetensors is missing from the index, which names "
                "model-00001-of-00002.safetensors; fetch the index again");
  write_index(scratch, R"({"a":"model-00001-of-00002.safetensors","b":"model-00002-of-00002.safetensors"})");
  EXPECT_EQ(refusal_at(scratch.path), index +
                                          ": the shard model-00002-of-00002.safetensors is not in the folder; the "
                                          "download is incomplete, fetch it again");
}

TEST(Checkpoint, TensorsAndShardsMustAgree) {
  const Scratch scratch;
  const auto index = (scratch / "model.safetensors.index.json").string();
  write_tensors(scratch / "x.safetensors", {"a"});
  write_tensors(scratch / "y.safetensors", {"a", "b"});
  write_index(scratch, R"({"a":"x.safetensors","b":"y.safetensors"})");
  EXPECT_EQ(refusal_at(scratch.path),
            (scratch / "y.safetensors").string() +
                ": tensor `a` is also in x.safetensors; the shards do not belong together, fetch them again");
  write_tensors(scratch / "y.safetensors", {"b"});
  write_index(scratch, R"({"a":"y.safetensors","b":"x.safetensors"})");
  EXPECT_EQ(refusal_at(scratch.path),
            index + ": tensor `a` should be in y.safetensors, it is in x.safetensors; fetch the files again");
  write_index(scratch, R"({"c":"y.safetensors"})");
  EXPECT_EQ(refusal_at(scratch.path),
            index + ": tensor `c` should be in y.safetensors, it is in no shard; fetch the files again");
}

TEST(Checkpoint, ADamagedIndexIsRefused) {
  const Scratch scratch;
  const auto index = (scratch / "model.safetensors.index.json").string();
  for (const auto* text : {"", "{", "[]", "{}", R"({"weight_map":{}})", R"({"weight_map":7})"}) {
    write_text(index, text);
    EXPECT_EQ(refusal_at(scratch.path),
              index + ": expected JSON with a `weight_map` from tensors to files; the file is damaged, fetch it again")
        << text;
  }
  for (const auto* shard : {R"("../secret")", R"("..")", "7", R"("")"}) {
    write_index(scratch, fmt::format(R"({{"a":{}}})", shard));
    EXPECT_EQ(refusal_at(scratch.path),
              fmt::format("{}: tensor `a` is said to be in {}, expected the name of a file in the same folder", index,
                          shard));
  }
}

TEST(Checkpoint, TheHashDependsOnNamesAndContents) {
  const Scratch scratch;
  write_tensors(scratch / "a.safetensors", {"a"});
  write_tensors(scratch / "b.safetensors", {"a"});
  write_tensors(scratch / "c.safetensors", {"c"});
  const auto hash = [&](const std::string& name) { return checkpoint_hash(read_checkpoint(scratch / name)); };
  EXPECT_EQ(hash("a.safetensors"), hash("a.safetensors"));
  EXPECT_NE(hash("a.safetensors"), hash("b.safetensors"));
  EXPECT_NE(hash("a.safetensors"), hash("c.safetensors"));
  EXPECT_EQ(hash("a.safetensors").size(), 64u);
}

}  // namespace
}  // namespace graft::io
