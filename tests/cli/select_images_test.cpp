// graft select, and a run that chooses its source itself, on images: decoded once for sources that prepare them differently.
#include <gtest/gtest.h>

#include "tests/cli/program.h"
#include "tests/run/toy_images.h"

namespace graft {
namespace {

namespace fs = std::filesystem;
using tests::graft;
using tests::has;

struct SelectImages : testing::Test {
  SelectImages() {
    // Three classes by their colour: 3 x 12 to learn from, 3 x 6 to judge by.
    tests::write_toy_images(scratch / "data/train", 12, 1);
    tests::write_toy_images(scratch / "data/validation", 6, 2);
    tests::write_toy_images(scratch / "data/test", 4, 3);
    source("vit", "vit-hf-classifier", R"({"resize_size": 32, "crop_size": 32})");
    source("resnet", "resnet-cifar", R"({"resize_size": 36, "crop_size": 32, "mean": [0.5, 0.5, 0.5]})");
  }
  void source(const char* name, const char* fixture, const char* transform) const {
    fs::copy(tests::fixture(std::string("parity/") + fixture + "/model"), scratch / name, fs::copy_options::recursive);
    fs::remove(scratch / name / "preprocessor_config.json");
    tests::write_text(scratch / name / "transform.json", transform);
  }
  std::string path(const char* name) const { return (scratch / name).string(); }
  tests::Outcome select(const std::vector<std::string>& more) const {
    std::vector<std::string> arguments{"select",    "--json",      "--data",       path("data"), "--candidate",
                                       path("vit"), "--candidate", path("resnet"), "--set",      "train.threads=1"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return graft(arguments);
  }
  tests::Scratch scratch;
};

TEST_F(SelectImages, EveryImageIsDecodedOnceForAllSources) {
  const auto outcome = select({"--quiet"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const auto answer = Json::parse(outcome.out);
  EXPECT_EQ(answer["examples"], 36);
  EXPECT_EQ(answer["images_decoded"], 36) << "two sources prepare them differently";
  EXPECT_EQ(answer["data"]["modality"], "image");
  ASSERT_EQ(answer["ranking"].size(), 2) << answer["dropped"].dump();
  // Colours are told apart by either of them.
  EXPECT_GT(answer["ranking"][0]["scores"]["linear_probe"].get<double>(), 0.8);
  for (const auto& item : answer["ranking"]) {
    EXPECT_TRUE(item["scores"].contains("leep") && item["scores"].contains("nce"))
        << "both are classifiers: " << item.dump();
    EXPECT_LE(item["scores"]["leep"].get<double>(), 0);
  }
  // The features are those that the source alone would have.
  const auto alone = graft({"select", "--json", "--quiet", "--data", path("data"), "--candidate", path("resnet"),
                            "--set", "train.threads=1"});
  ASSERT_EQ(alone.code, 0) << alone.err;
  const auto own = Json::parse(alone.out)["ranking"][0]["scores"];
  for (const auto& item : answer["ranking"]) {
    if (item["source"] == "resnet") {
      EXPECT_EQ(item["scores"], own);
    }
  }
}

TEST_F(SelectImages, HalvingDecodesTheValidationImagesOnceMore) {
  const auto outcome = select({"--quiet", "--halving"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const auto answer = Json::parse(outcome.out);
  EXPECT_EQ(answer["images_decoded"], 36 + 18);
  EXPECT_EQ(answer["ranking"][0]["rounds"][0]["metric"], answer["ranking"][1]["rounds"][0]["metric"]);
}

TEST_F(SelectImages, AnImageThatOneSourceCannotUseIsLeftOutOfAll) {
  tests::write_text(scratch / "data/train/red/3.png", "no image");
  const auto stops = select({"--quiet"});
  EXPECT_EQ(stops.code, 3) << stops.err;
  EXPECT_TRUE(has(stops.err, "3.png")) << stops.err;
  const auto skips = select({"--quiet", "--set", "data.bad_rows=skip"});
  ASSERT_EQ(skips.code, 0) << skips.err;
  const auto answer = Json::parse(skips.out);
  EXPECT_EQ(answer["examples"], 35);
  EXPECT_EQ(answer["ranking"].size(), 2) << answer["dropped"].dump();
}

TEST_F(SelectImages, AnArchiveIsImagesAndATextSourceDropsOut) {
  tests::write_tiny_source(scratch / "text");
  ASSERT_EQ(std::system(("cd " + scratch.path.string() +
                         " && python3 -c \"import shutil; shutil.make_archive('images', 'zip', 'data')\"")
                            .c_str()),
            0);
  const auto outcome = graft({"select", "--json", "--quiet", "--data", path("images.zip"), "--candidate", path("text"),
                              "--candidate", path("resnet"), "--set", "train.threads=1"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const auto answer = Json::parse(outcome.out);
  EXPECT_EQ(answer["winner"], "resnet");
  EXPECT_TRUE(has(answer["dropped"][0]["reason"], "it takes texts, and these data are images")) << answer.dump();
}

TEST_F(SelectImages, ARunTakesTheBestSourceAndItsFeatures) {
  std::vector<std::string> arguments{
      "run",      "--json",
      "--source", "auto",
      "--data",   path("data"),
      "--out",    path("run"),
      "--set",    "select.candidates=[\"" + path("vit") + "\", \"" + path("resnet") + "\"]"};
  for (const auto* setting :
       {"finetune.head.epochs=2", "finetune.head.min_epochs=1", "finetune.head.learning_rates=[1e-2]",
        "finetune.head.weight_decays=[0.01]", "finetune.unfreeze.max_units=1", "finetune.unfreeze.epochs=1",
        "finetune.full.when=never", "train.batch_size=8", "train.threads=1"})
    arguments.insert(arguments.end(), {"--set", setting});
  const auto run = graft(arguments);
  ASSERT_EQ(run.code, 0) << run.err;
  const auto result = Json::parse(run.out);
  const auto winner = result["select"]["winner"].get<std::string>();
  EXPECT_TRUE(has(tests::read_text(scratch / "run/recipe.toml"), path(winner.c_str())));
  EXPECT_TRUE(has(tests::read_text(scratch / "run/journal.jsonl"), "\"modality\":\"image\""));
  EXPECT_FALSE(has(run.err, "computed once for 36 training examples")) << run.err;
  EXPECT_TRUE(has(run.err, "computed once for 18 validation examples")) << run.err;
  auto named = arguments;
  *(std::find(named.begin(), named.end(), "auto")) = path(winner.c_str());
  *(std::find(named.begin(), named.end(), "--out") + 1) = path("named");
  ASSERT_EQ(graft(named).code, 0);
  EXPECT_EQ(tests::read_text(scratch / "run/model/model.safetensors"),
            tests::read_text(scratch / "named/model/model.safetensors"));
}

}  // namespace
}  // namespace graft
