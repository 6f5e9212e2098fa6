// The catalogue as it is built into the program, and rows of users.
#include "graft/select/catalogue.h"

#include <gtest/gtest.h>

#include <set>

#include "graft/core/error.h"
#include "graft/hub/cache.h"
#include "tests/fixtures.h"

namespace graft::select {
namespace {

using tests::has;

TEST(Catalogue, EveryRowIsCompleteAndEveryIdWellFormed) {
  const auto rows = catalogue({});  // strict: a missing field or one without evidence throws, with all of them
  EXPECT_GE(rows.size(), 60u);
  for (const auto& row : rows) {
    SCOPED_TRACE(row.id);
    EXPECT_TRUE(hub::is_repository_id(row.id));
    EXPECT_GT(row.parameters, 1'000'000);
    EXPECT_GT(row.download_mb, 1);
    // A download holds two to four bytes a parameter, but for the files that say otherwise (deltas, parts, other towers).
    if (row.verified("parameters") && row.files.empty()) {
      const auto bytes = row.download_mb * 1e6 / static_cast<double>(row.parameters);
      EXPECT_GT(bytes, 1.9);
      EXPECT_LT(bytes, 4.2);
    }
    for (const auto& format : row.formats)
      EXPECT_TRUE(format == "safetensors" || format == "pytorch" || format == "open_clip");
    if (row.gated) {
      EXPECT_TRUE(has(row.caveats.front(), "gated"));
    }
    if (row.licence == "unknown") {
      EXPECT_FALSE(row.verified("licence"));
    }
  }
}

TEST(Catalogue, AllTwentyTwoSystemsOfTheTreeAreThere) {
  std::set<std::string> found;
  for (const auto& row : catalogue({})) found.insert(row.system);
  for (const auto* system :
       {"ResNet",    "EfficientNet", "ViT",       "MedCLIP", "RadDINO",  "BioViL", "SatMAE",  "Prithvi",
        "CellViT",   "BioCLIP",      "BERT",      "RoBERTa", "DeBERTa",  "LLaMA",  "SciBERT", "BioMedBERT",
        "LegalBERT", "CodeBERT",     "StarCoder", "CLIP",    "Flamingo", "LLaVA"})
    EXPECT_TRUE(found.contains(system)) << system;
}

TEST(Catalogue, WhatRunsIsWhatTheModelsSay) {
  for (const auto& row : catalogue({})) {
    if (row.architecture == "bert" || row.architecture == "roberta") {
      EXPECT_TRUE(row.runs()) << row.id;
    }
    if (row.architecture == "medclip") {
      EXPECT_FALSE(row.runs()) << row.id;
    }
    // timm's and torchvision's names of what graft runs as one of its families.
    if (row.architecture.starts_with("timm/") || row.architecture.starts_with("torchvision/")) {
      EXPECT_TRUE(row.runs()) << row.id;
    }
  }
  const auto runs = [](const char* architecture) {
    CatalogueRow row;
    row.architecture = architecture;
    return row.runs();
  };
  EXPECT_TRUE(runs("timm/vit_base_patch16_224") && runs("timm/swin_tiny_patch4_window7_224"));
  for (const auto* other :
       {"timm/convnext_base", "torchvision/vit_b_16", "torchvision/densenet121", "timm", "x/resnet50"})
    EXPECT_FALSE(runs(other)) << other;
}

TEST(Catalogue, BareWeightsSayHowTheirImagesArePrepared) {
  for (const auto& row : catalogue({})) {
    if (!row.architecture.starts_with("torchvision/")) continue;
    EXPECT_TRUE(row.transform.contains("resize_size") && row.transform.contains("crop_size")) << row.id;
    EXPECT_EQ(row.json()["transform"], row.transform);
  }
  EXPECT_TRUE(has(tests::message_of([] { read_catalogue("[[source]]\nid = 'a/b'\ntransform = 224\n", "mine", false); }),
                  "transform: expected a table such as"));
}

TEST(Catalogue, EveryRowThatRunsHasAKnownSize) {
  for (const auto& row : catalogue({})) {
    EXPECT_TRUE(!row.runs() || row.download_mb > 0) << row.id;
  }
}

TEST(Catalogue, FiltersKeepTheGeneralModels) {
  const auto rows = catalogue({});
  const auto legal = filtered(rows, {"text", "legal", "", 500});
  std::set<std::string> systems;
  for (const auto& row : legal) {
    EXPECT_TRUE(row.domain == "legal" || row.domain == "general");
    EXPECT_LE(row.download_mb, 500);
    systems.insert(row.system);
  }
  EXPECT_TRUE(systems.contains("LegalBERT") && systems.contains("BERT"));
  EXPECT_FALSE(systems.contains("SciBERT"));
  EXPECT_EQ(legal.front().domain, "general");
  for (const auto& row : filtered(rows, {"", "", "MIT", 0}))
    EXPECT_TRUE(has(row.licence, "mit") || has(row.licence, "MIT"));
  const auto message = [&](CatalogueFilter filter) { return tests::message_of([&] { filtered(rows, filter); }); };
  EXPECT_TRUE(has(message({"imge", "", "", 0}), "did you mean image?"));
  EXPECT_TRUE(has(message({"", "leagl", "", 0}), "did you mean legal?"));
  EXPECT_TRUE(has(message({"text", "", "", 1}), "no source fits these wishes. Nearest are nlpaueb/legal-bert-small"));
}

TEST(Catalogue, SizesAsPeopleWriteThem) {
  EXPECT_DOUBLE_EQ(parse_megabytes("500"), 500);
  EXPECT_DOUBLE_EQ(parse_megabytes("500MB"), 500);
  EXPECT_DOUBLE_EQ(parse_megabytes("1.5 GB"), 1500);
  EXPECT_NEAR(parse_megabytes("2GiB"), 2147.5, 0.1);
  for (const auto* wrong : {"", "much", "-3", "5 parsec"})
    EXPECT_TRUE(has(tests::message_of([&] { parse_megabytes(wrong); }), "is not a size")) << wrong;
}

TEST(Catalogue, RowsOfUsersTakeTheFirstPlaceAndMistakesAreAllReported) {
  const tests::Scratch scratch;
  const auto file = scratch / "sources.toml";
  tests::write_text(file, R"([[source]]
id = "me/my-bert"
architecture = "bert"
domain = "astronomy"
licence = "mine"

[[source]]
id = "google-bert/bert-base-uncased"
architecture = "bert"
caveats = ["our mirror"]
)");
  const auto rows = catalogue({scratch / "missing.toml", file});
  int mirrors = 0;
  for (const auto& row : rows) {
    if (row.id == "google-bert/bert-base-uncased") {
      ++mirrors;
      EXPECT_EQ(row.from, file.string());
      EXPECT_EQ(row.licence, "unknown");
      EXPECT_FALSE(row.verified("licence"));
    }
  }
  EXPECT_EQ(mirrors, 1);
  EXPECT_EQ(filtered(rows, {"text", "astronomy", "mine", 0}).front().id, "me/my-bert");
  const auto wrong = tests::message_of([] {
    read_catalogue("[[source]]\nid = 'nobody'\nlicense = 'x'\nparameters = -1\nmodality = 'txt'\norigin = 'url'\n",
                   "mine", false);
  });
  for (const auto* part : {"5 mistakes", "expected ORG/NAME", "did you mean `licence`", "parameters",
                           "modality is `txt`", "`url` must say where"})
    EXPECT_TRUE(has(wrong, part)) << part << "\n" << wrong;
  EXPECT_TRUE(
      has(tests::message_of([] { read_catalogue("[[source]]\nid = 'a/b'\n", "own", true); }), "`licence` is missing"));
}

TEST(Catalogue, FilesOfUsersAreInTheConfigurationFolderAndBesideTheRecipe) {
  setenv("XDG_CONFIG_HOME", "/x", 1);
  const auto files = user_catalogues("/recipes/a.toml");
  unsetenv("XDG_CONFIG_HOME");
  EXPECT_EQ(files, (std::vector<fs::path>{"/x/graft/sources.toml", "/recipes/sources.toml"}));
}

}  // namespace
}  // namespace graft::select
