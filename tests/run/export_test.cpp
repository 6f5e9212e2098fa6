// Models are saved in the names that their source came with, and say what loads them.
#include "graft/run/export.h"

#include <gtest/gtest.h>

#include "graft/io/safetensors.h"
#include "graft/models/timm.h"
#include "tests/fixtures.h"
#include "tests/models/cases.h"

namespace graft::run {
namespace {

std::set<std::string> keys_in(const std::filesystem::path& file) {
  std::set<std::string> keys;
  for (const auto& item : io::read_safetensors(file).tensors) keys.insert(item.first);
  return keys;
}

class ExportedNames : public testing::TestWithParam<const char*> {};

TEST_P(ExportedNames, AreTheSourcesOwn) {
  const tests::Scratch scratch;
  auto source = models::Source::open(tests::fixture(std::string("parity/") + GetParam() + "/model"));
  const models::Task task{"classification", 3};
  const auto loaded = models::load(source, task, 1);
  const std::vector<std::string> labels{"a", "b", "c"};
  export_model(scratch / "model", source, *loaded.model, task, labels, {}, {.base_model = "x", .task = task.kind});
  const auto written = keys_in(scratch / "model/model.safetensors");
  for (const auto& [key, in_file] : loaded.report.key_in_file)
    EXPECT_TRUE(written.contains(source.checkpoint.name_in_file(in_file))) << key;
  EXPECT_EQ(written.size(), loaded.report.key_in_file.size() + loaded.report.fresh.size());

  const auto again = models::Source::open(scratch / "model");
  EXPECT_EQ(models::task_of(again.config, *again.architecture).num_labels, 3);
  EXPECT_EQ(models::label_names(again.config), labels);
  const auto reloaded = models::load(again, task, 2);
  EXPECT_TRUE(reloaded.report.fresh.empty());
  const auto before = tests::tensors_of(*loaded.model), after = tests::tensors_of(*reloaded.model);
  ASSERT_EQ(before.size(), after.size());
  for (const auto& [key, value] : before) EXPECT_TRUE(tests::same(value, after.at(key))) << key;

  const auto card = tests::read_text(scratch / "model/README.md");
  const bool timm = models::is_timm(source.config), bare = source.config.contains("layout");
  EXPECT_EQ(card.find("library_name: timm\n") != std::string::npos, timm) << card;
  EXPECT_EQ(card.find("library_name: transformers\n") != std::string::npos, !timm && !bare) << card;
  EXPECT_EQ(std::filesystem::exists(scratch / "model/graft.json"), bare);
}

INSTANTIATE_TEST_SUITE_P(Sources, ExportedNames,
                         testing::Values("resnet-cifar", "resnet-torchvision-basic", "efficientnet-torchvision",
                                         "vit-torchvision", "vit-mae-authors", "dinov2-authors",
                                         "dinov2-authors-registers", "swin-torchvision", "swin-authors", "swin-timm",
                                         "vit-timm-swiglu", "vit-hf-classifier", "swin-classifier"),
                         [](const auto& info) {
                           std::string name = info.param;
                           for (auto& c : name)
                             if (c == '-') c = '_';
                           return name;
                         });

TEST(ExportedNames, WhatWasWrappedAroundTheNetworkIsBackInTheNames) {
  const tests::Scratch scratch;
  const auto source = models::Source::open(tests::fixture("parity/dinov2-authors/model"));  // a teacher's backbone
  const models::Task task{"classification", 3};
  export_model(scratch / "model", source, *models::load(source, task, 1).model, task, {}, {},
               {.base_model = "x", .task = task.kind});
  const auto written = keys_in(scratch / "model/model.safetensors");
  EXPECT_TRUE(written.contains("backbone.blocks.0.attn.qkv.weight"));
  EXPECT_TRUE(written.contains("head.weight"));
  const auto cifar = models::Source::open(tests::fixture("parity/resnet-cifar/model"));
  export_model(scratch / "cifar", cifar, *models::load(cifar, task, 1).model, task, {}, {},
               {.base_model = "x", .task = task.kind});
  EXPECT_TRUE(keys_in(scratch / "cifar/model.safetensors").contains("module.linear.weight"));
  const auto torchvision = models::Source::open(tests::fixture("parity/vit-torchvision/model"));
  export_model(scratch / "vit", torchvision, *models::load(torchvision, task, 1).model, task, {}, {},
               {.base_model = "x", .task = task.kind});
  EXPECT_TRUE(keys_in(scratch / "vit/model.safetensors")
                  .contains("encoder.layers.encoder_layer_0.self_attention.in_proj_weight"));
}

TEST(ExportedNames, OnlyFilesOfItsKindHoldADecoder) {
  for (const auto& [name, decoder] : {std::pair{"vit-mae-authors", "decoder_embed.weight"},
                                      {"vit-hf-classifier", "decoder.decoder_embed.weight"},
                                      {"rad-dino-model", ""},
                                      {"vit-timm-token", ""},
                                      {"dinov2-authors", ""}}) {
    const tests::Scratch scratch;
    auto source = models::Source::open(tests::fixture(std::string("parity/") + name + "/model"));
    Json sizes{{"decoder_hidden_size", 16},
               {"decoder_num_attention_heads", 2},
               {"decoder_num_hidden_layers", 1},
               {"decoder_intermediate_size", 64}};
    source.config.update(sizes);
    const models::Task task{"masked_image"};
    const auto loaded = models::load(source, task, 1);
    export_model(scratch / "model", source, *loaded.model, task, {}, {}, {.base_model = "x", .task = task.kind});
    const auto written = keys_in(scratch / "model/model.safetensors");
    EXPECT_EQ(written.contains(decoder), std::string(decoder) != "") << name;
    for (const auto& key : written) EXPECT_TRUE(std::string(decoder) != "" || !key.starts_with("decoder")) << key;
    const auto again = models::Source::open(scratch / "model");
    EXPECT_EQ(again.config.contains("decoder_hidden_size"), std::string(decoder) != "") << name;
    const auto expected = std::string(decoder) != "" ? "masked_image" : "features";
    EXPECT_EQ(models::task_of(again.config, *again.architecture).kind, expected) << name;
  }
}

}  // namespace
}  // namespace graft::run
