// Images as a user has them, through the whole program.
#include <gtest/gtest.h>

#include <sched.h>

#include <csignal>
#include <cstring>
#include <set>

#include "graft/core/random.h"
#include "graft/io/checkpoint.h"
#include "graft/io/safetensors.h"
#include "tests/cli/program.h"

namespace graft {
namespace {

using tests::fixture;
using tests::graft;
using tests::Scratch;

TEST(PreprocessCommand, WritesWhatTheReferenceGives) {
  const Scratch scratch;
  const auto folder = fixture("parity/preprocess/clip");
  const auto outcome =
      graft({"preprocess", "--json", "--sixteen-bit", "saturate", "--model", folder.string(), "--outputs",
             (scratch / "out.safetensors").string(), fixture("parity/preprocess/images").string()});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(Json::parse(outcome.out)["images"], 12);
  const auto found = io::read_safetensors(scratch / "out.safetensors"),
             wanted = io::read_safetensors(folder / "pixel_values.safetensors");
  ASSERT_EQ(found.tensors.size(), wanted.tensors.size());
  for (const auto& [name, view] : wanted.tensors) {
    const auto& ours = found.tensors.at(name);
    ASSERT_EQ(ours.shape, view.shape) << name;
    for (int64_t i = 0; i < io::element_count(view.shape); ++i) {
      float a = 0, b = 0;
      std::memcpy(&a, ours.data + 4 * i, 4), std::memcpy(&b, view.data + 4 * i, 4);
      ASSERT_NEAR(a, b, 1e-6) << name;
    }
  }
}

TEST(PreprocessCommand, ABadImageIsNamed) {
  const Scratch scratch;
  for (const auto* name : {"truncated.jpg", "bomb.png", "empty.png", "text.jpg"}) {
    const auto outcome = graft({"preprocess", "--model", fixture("parity/preprocess/vit").string(), "--outputs",
                                (scratch / "out.safetensors").string(), fixture("images/bad").string() + "/" + name});
    EXPECT_EQ(outcome.code, 3) << outcome.err;
    EXPECT_NE(outcome.err.find(name), std::string::npos) << outcome.err;
    EXPECT_FALSE(std::filesystem::exists(scratch / "out.safetensors"));
  }
}

// ---- a whole run

/// 32 x 32 pixels, 24 bits: a noisy image, bright above or below.
void write_bmp(const std::filesystem::path& path, bool bright_above, Random& random) {
  constexpr int kSide = 32;
  std::string bytes("BM");
  const auto put = [&](uint32_t value, int size) {
    for (int i = 0; i < size; ++i) bytes.push_back(static_cast<char>(value >> (8 * i)));
  };
  for (const uint32_t field : {54U + 3 * kSide * kSide, 0U, 54U, 40U, 1U * kSide, 1U * kSide}) put(field, 4);
  put(1, 2), put(24, 2);
  for (int i = 0; i < 6; ++i) put(0, 4);
  for (int y = 0; y < kSide; ++y)  // the lowest row first
    for (int i = 0; i < 3 * kSide; ++i)
      put(static_cast<uint32_t>(random.below(120)) + ((y >= kSide / 2) == bright_above ? 120 : 0), 1);
  std::filesystem::create_directories(path.parent_path());
  tests::write_text(path, bytes);
}

void write_images(const std::filesystem::path& folder) {
  Random random(3);
  for (const auto& [split, count] : {std::pair{"train", 24}, {"validation", 12}, {"test", 8}})
    for (int i = 0; i < count; ++i) {
      const bool above = i % 2 == 0;
      write_bmp(folder / split / (above ? "above" : "below") / (std::to_string(i) + ".bmp"), above, random);
    }
}

class ImageRun : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    std::filesystem::copy(fixture(std::string("parity/") + GetParam() + "/model"), scratch / "source",
                          std::filesystem::copy_options::recursive);
    std::filesystem::remove(scratch / "source" / "preprocessor_config.json");
    if (std::string(GetParam()).find("timm") == std::string::npos)  // timm's config.json says it
      tests::write_text(scratch / "source" / "transform.json", R"({"resize_size": 32, "crop_size": 32})");
    write_images(scratch / "data");
  }
  std::vector<std::string> run(const std::string& out) const {
    std::vector<std::string> arguments{"run",
                                       "--quiet",
                                       "--json",
                                       "--source",
                                       (scratch / "source").string(),
                                       "--data",
                                       (scratch / "data").string(),
                                       "--out",
                                       (scratch / out).string()};
    for (const auto* setting :
         {"finetune.head.epochs=2", "finetune.head.min_epochs=1", "finetune.head.learning_rates=[1e-2]",
          "finetune.head.weight_decays=[0.01]", "finetune.unfreeze.max_units=1", "finetune.unfreeze.epochs=1",
          "finetune.unfreeze.patience_units=0", "finetune.full.when=always", "finetune.full.epochs=1",
          "train.checkpoint_seconds=0", "train.batch_size=8", "train.threads=1"})
      arguments.insert(arguments.end(), {"--set", setting});
    return arguments;
  }
  static bool refused_without_batch_norm(const tests::Outcome& outcome);
  Scratch scratch;
};

TEST_P(ImageRun, LeavesAModelInTheSourcesLayoutThatEvaluatesAlike) {
  const auto outcome = graft(run("run"));
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const auto result = Json::parse(outcome.out);
  EXPECT_EQ(result["finetune"]["phases"].size(), 3u);  // head, one unit, full
  const auto model = scratch / "run" / "model";
  // The same keys as the source has, and the preprocessing beside them.
  const auto keys = [](const std::filesystem::path& folder) {
    std::set<std::string> names;
    for (const auto& item : io::read_checkpoint(folder).tensors) names.insert(item.first);
    return names;
  };
  EXPECT_EQ(keys(model), keys(scratch / "source"));
  EXPECT_EQ(std::filesystem::exists(model / "config.json"), std::filesystem::exists(scratch / "source/config.json"));
  EXPECT_EQ(std::filesystem::exists(model / "transform.json"),
            std::filesystem::exists(scratch / "source/transform.json"));
  const auto evaluation =
      graft({"evaluate", "--model", model.string(), "--data", (scratch / "data" / "test").string(), "--json"});
  ASSERT_EQ(evaluation.code, 0) << evaluation.err;
  EXPECT_EQ(Json::parse(evaluation.out)["metrics"]["accuracy"], result["test"]["accuracy"]);
  const auto prediction =
      graft({"predict", "--model", model.string(), "--json", (scratch / "data/test/above/0.bmp").string()});
  ASSERT_EQ(prediction.code, 0) << prediction.err;
  const auto probabilities = Json::parse(prediction.out)["probabilities"];
  EXPECT_NEAR(probabilities["above"].get<double>() + probabilities["below"].get<double>(), 1, 1e-5);

  // A folder, and what is behind the accuracy: who is taken for whom, and the mistakes as a sheet.
  const auto folder = graft({"predict", "--model", model.string(), "--json", (scratch / "data/test").string()});
  ASSERT_EQ(folder.code, 0) << folder.err;
  int predicted = 0, right = 0;
  std::istringstream lines(folder.out);
  for (std::string line; std::getline(lines, line); ++predicted) {
    const auto row = Json::parse(line);
    right += row["file_name"].get<std::string>().find("/" + row["label"].get<std::string>() + "/") != std::string::npos;
  }
  EXPECT_EQ(predicted, 8);
  const auto judged = graft({"evaluate", "--model", model.string(), "--data", (scratch / "data" / "test").string(),
                             "--json", "--mistakes", (scratch / "mistakes.png").string()});
  ASSERT_EQ(judged.code, 0) << judged.err;
  const auto answer = Json::parse(judged.out);
  EXPECT_EQ(answer["labels"], (Json{"above", "below"}));
  const auto confusion = answer["confusion"].get<std::vector<std::vector<int64_t>>>();
  EXPECT_EQ(confusion[0][0] + confusion[0][1], 4);
  EXPECT_EQ(confusion[1][0] + confusion[1][1], 4);
  EXPECT_EQ(confusion[0][0] + confusion[1][1], right);
  EXPECT_NEAR(answer["metrics"]["accuracy"].get<double>(), right / 8.0, 1e-9);
  ASSERT_EQ(answer["mistakes"].size(), static_cast<size_t>(8 - right));
  double before = 1;
  for (const auto& mistake : answer["mistakes"]) {
    EXPECT_NE(mistake["label"], mistake["predicted"]);
    EXPECT_NE(mistake["example"].get<std::string>().find("/" + mistake["label"].get<std::string>() + "/"),
              std::string::npos);
    EXPECT_LE(mistake["probability"].get<double>(), before);
    before = mistake["probability"];
  }
  EXPECT_EQ(tests::read_text(scratch / "mistakes.png").substr(1, 3), "PNG");
}

/// A recipe with views that are stored, and views that are drawn and blended.
std::vector<std::string> augmented(std::vector<std::string> arguments) {
  for (const auto* setting :
       {"images.augment.enabled=true", "images.augment.views=2", "images.augment.mixup=0.4", "images.augment.cutmix=1",
        "images.augment.randaugment=1", "images.augment.hue=0.1", "images.cache_gb=0"})
    arguments.insert(arguments.end(), {"--set", setting});
  return arguments;
}

class AugmentedRun : public ImageRun {};

TEST_P(AugmentedRun, ResumedAfterAKillByAnotherNumberOfWorkersItEndsWithTheSameBytes) {
  cpu_set_t all, one;
  ASSERT_EQ(sched_getaffinity(0, sizeof all, &all), 0);
  CPU_ZERO(&one);
  for (int cpu = 0; CPU_COUNT(&one) == 0; ++cpu)
    if (CPU_ISSET(cpu, &all)) CPU_SET(cpu, &one);
  ASSERT_EQ(graft(augmented(run("whole"))).code, 0);
  const auto expected = tests::run_fingerprint(scratch / "whole");
  int killed = 0;
  for (const int operation : {60, 110, 170}) {
    const auto name = "run" + std::to_string(operation);
    sched_setaffinity(0, sizeof all, &all);
    const auto first = graft(augmented(run(name)), "", {"GRAFT_TEST_FAULT=kill:" + std::to_string(operation)});
    if (first.code == 0) continue;
    ASSERT_EQ(first.code, 128 + SIGKILL) << first.err;
    ++killed;
    sched_setaffinity(0, sizeof one, &one);  // images are made on as many threads as there are cores
    const auto resumed = graft({"run", "--quiet", "--resume", (scratch / name).string()});
    sched_setaffinity(0, sizeof all, &all);
    ASSERT_EQ(resumed.code, 0) << "operation " << operation << ": " << resumed.err;
    EXPECT_EQ(tests::run_fingerprint(scratch / name), expected) << "operation " << operation;
  }
  EXPECT_GE(killed, 1);
}

INSTANTIATE_TEST_SUITE_P(Sources, AugmentedRun, testing::Values("resnet-cifar"),
                         [](const auto&) { return std::string("resnet_cifar"); });

TEST(ImageEvaluate, AModelWithoutClassNamesSaysHowToNameThem) {
  const Scratch scratch;
  std::filesystem::copy(fixture("parity/resnet-cifar/model"), scratch / "source");
  tests::write_text(scratch / "source" / "transform.json", R"({"resize_size": 32, "crop_size": 32})");
  write_images(scratch / "data");
  const std::vector<std::string> evaluate{
      "evaluate", "--model", (scratch / "source").string(), "--data", (scratch / "data" / "test").string(), "--json"};
  const auto refused = graft(evaluate);
  EXPECT_EQ(refused.code, 4);
  EXPECT_NE(refused.err.find("does not name its 5 classes"), std::string::npos) << refused.err;
  tests::write_text(scratch / "source" / "graft.json", R"({"model_type": "resnet", "layout": "torchvision",
                                                          "label_names": ["a", "above", "b", "below", "c"]})");
  const auto outcome = graft(evaluate);
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(Json::parse(outcome.out)["examples"], 8);
}

TEST(ImageEvaluate, PublishedWeightsHaveTheReferencesAccuracy) {
  const auto weights = tests::shared("data/weights/resnet20-12fca82f.th"), images = tests::shared("data/cifar10/test");
  if (!std::filesystem::exists(weights) || !std::filesystem::exists(images))
    GTEST_SKIP() << weights << " or " << images << " is not here";
  const Scratch scratch;
  std::filesystem::copy_file(weights, scratch / "resnet20.th");
  tests::write_text(scratch / "transform.json", R"({"resize_size": 32, "crop_size": 32})");
  tests::write_text(scratch / "graft.json",
                    R"({"model_type": "resnet", "layout": "torchvision", "label_names": ["airplane",
    "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]})");
  const auto outcome = graft({"evaluate", "--model", scratch.path.string(), "--data", images.string(), "--json"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const auto result = Json::parse(outcome.out);
  EXPECT_EQ(result["examples"], 2000);
  EXPECT_NEAR(result["metrics"]["accuracy"].get<double>(), 0.812, 5e-4);  // 81.2 % by the authors' code
}

TEST_P(ImageRun, ResumedAfterAKillItEndsWithTheSameBytes) {
  ASSERT_EQ(graft(run("whole")).code, 0);
  const auto arguments = [&](const std::string& name) { return run(name); };
  EXPECT_GE(tests::expect_same_after_kills(scratch / "whole", {25, 60, 110, 170}, arguments), 2);
}

// ---- batch norms on the target domain

/// Whether the source is one without batch norms; then `outcome` must be the refusal that says so.
bool ImageRun::refused_without_batch_norm(const tests::Outcome& outcome) {
  const std::string name = GetParam();
  if (!name.starts_with("vit") && !name.starts_with("swin")) return false;
  EXPECT_EQ(outcome.code, 2);
  EXPECT_NE(outcome.err.find("the source has no batch norm"), std::string::npos) << outcome.err;
  return true;
}

TEST_P(ImageRun, BatchNormsCanTakeTheTargetsStatistics) {
  const auto with = [&](const std::string& out) {
    auto arguments = run(out);
    arguments.insert(arguments.end(), {"--set", "finetune.batch_norm=target"});
    return arguments;
  };
  const auto outcome = graft(with("target"));
  if (refused_without_batch_norm(outcome)) return;
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_NE(tests::read_text(scratch / "target/journal.jsonl").find("\"event\":\"batch_norm\""), std::string::npos);
  // A resumed run has the statistics from its checkpoint.
  EXPECT_GE(tests::expect_same_after_kills(scratch / "target", {40, 70, 100}, with), 1);
}

TEST_P(ImageRun, BatchNormsCanKeepTheSourcesStatistics) {
  const auto with = [&](const std::string& out) {
    auto arguments = run(out);
    // A head that learns next to nothing, so that the best weights are of a phase that changes more than it.
    for (const auto* setting :
         {"finetune.batch_norm=held", "finetune.head.learning_rates=[1e-9]", "finetune.head.closed_form=false",
          "finetune.unfreeze.learning_rate=1e-2", "finetune.full.learning_rate=2e-3", "finetune.full.epochs=12",
          "finetune.full.patience=0", "train.batch_size=4"})
      arguments.insert(arguments.end(), {"--set", setting});
    return arguments;
  };
  const auto outcome = graft(with("held"));
  if (refused_without_batch_norm(outcome)) return;
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const auto source = io::read_checkpoint(scratch / "source"), result = io::read_checkpoint(scratch / "held/model");
  int statistics = 0, learned = 0;
  for (const auto& [name, before] : source.tensors) {
    const auto& after = result.tensors.at(name);
    if (before.dtype != io::DType::f32 || before.shape != after.shape) continue;
    const bool same = std::memcmp(before.data, after.data, 4 * io::element_count(before.shape)) == 0;
    if (name.ends_with("running_mean") || name.ends_with("running_var")) {
      ++statistics;
      EXPECT_TRUE(same) << name;
    } else {
      learned += !same;
    }
  }
  EXPECT_GT(statistics, 0);
  EXPECT_GT(learned, 0);
  // What holds them is not in a checkpoint: it follows from the recipe.
  EXPECT_EQ(tests::expect_same_after_kills(scratch / "held", {100}, with), 1);
}

// ---- masked autoencoding before the schedule

class AdaptedImageRun : public ImageRun {
 protected:
  std::vector<std::string> adapted_run(const std::string& out) const {
    auto arguments = run(out);
    arguments.insert(arguments.end(), {"--corpus", (scratch / "data" / "train").string()});
    for (const auto* setting :
         {"adapt.epochs=2", "adapt.head_epochs=1", "adapt.batch_size=8", "adapt.held_out_fraction=0.3",
          "adapt.images.decoder_width=16", "adapt.images.decoder_heads=2", "adapt.images.decoder_layers=1",
          "adapt.images.base_learning_rate=3e-2", "adapt.images.mask_ratio=0.5"})
      arguments.insert(arguments.end(), {"--set", setting});
    return arguments;
  }
};

TEST_P(AdaptedImageRun, LeavesAnAdaptedModelReconstructionsAndAClassifier) {
  const auto outcome = graft(adapted_run("run"));
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const auto result = Json::parse(outcome.out);
  EXPECT_LT(result["adapt"]["after"]["loss"], result["adapt"]["before"]["loss"]);
  EXPECT_FALSE(result["adapt"]["after"].contains("perplexity"));
  EXPECT_EQ(result["adapt"]["images"], 24);
  std::istringstream journal(tests::read_text(scratch / "run/journal.jsonl"));
  int adapt_epochs = 0;
  for (std::string line; std::getline(journal, line);)
    if (const auto entry = Json::parse(line); entry["event"] == "epoch" && entry["phase"] == "adapt") {
      ++adapt_epochs;
      EXPECT_NE(entry["loss"], entry["validation_loss"]);
    }
  EXPECT_EQ(adapt_epochs, 2);
  EXPECT_EQ(result["finetune"]["phases"].size(), 3u);
  EXPECT_EQ(tests::read_text(scratch / "run/reconstructions/1.png").substr(1, 3), "PNG");

  const bool timm = std::string(GetParam()).find("timm") != std::string::npos,
             dinov2 = std::string(GetParam()).starts_with("rad-dino");
  const auto config = [&](const char* folder) {
    return Json::parse(tests::read_text(scratch / folder / "config.json"));
  };
  bool decoder = false;
  for (const auto& item : io::read_checkpoint(scratch / "run/adapted").tensors)
    decoder = decoder || item.first.starts_with("decoder.");
  EXPECT_EQ(decoder, !timm && !dinov2);
  if (timm) {
    EXPECT_EQ(config("run/adapted")["num_classes"], 0);
    EXPECT_FALSE(config("run/adapted").contains("decoder_hidden_size"));
  } else if (dinov2) {
    EXPECT_EQ(config("run/adapted")["architectures"][0], "Dinov2Model");
    EXPECT_FALSE(config("run/adapted").contains("decoder_hidden_size"));
    EXPECT_EQ(config("run/model")["architectures"][0], "Dinov2ForImageClassification");
  } else {
    EXPECT_EQ(config("run/adapted")["architectures"][0], "ViTMAEForPreTraining");
    EXPECT_EQ(config("run/adapted")["model_type"], "vit_mae");
    EXPECT_EQ(config("run/adapted")["norm_pix_loss"], true);
    EXPECT_EQ(config("run/model")["architectures"][0], "ViTForImageClassification");
    EXPECT_EQ(config("run/model")["model_type"], "vit");
    // An adapted model goes on where it stopped: it has its decoder.
    auto again = adapted_run("again");
    again[0] = "adapt";
    std::replace(again.begin(), again.end(), (scratch / "source").string(), (scratch / "run/adapted").string());
    again.erase(std::find(again.begin(), again.end(), "--data"), std::find(again.begin(), again.end(), "--data") + 2);
    const auto more = graft(again);
    ASSERT_EQ(more.code, 0) << more.err;
    EXPECT_EQ(Json::parse(more.out)["adapt"]["before"]["loss"], result["adapt"]["after"]["loss"]);
  }
  const auto evaluation = graft({"evaluate", "--model", (scratch / "run/model").string(), "--data",
                                 (scratch / "data" / "test").string(), "--json"});
  ASSERT_EQ(evaluation.code, 0) << evaluation.err;
  EXPECT_EQ(Json::parse(evaluation.out)["metrics"]["accuracy"], result["test"]["accuracy"]);
}

TEST_P(AdaptedImageRun, ResumedAfterAKillItEndsWithTheSameBytes) {
  ASSERT_EQ(graft(adapted_run("whole")).code, 0);
  const auto whole = [](const std::filesystem::path& run) {
    return tests::run_fingerprint(run) + tests::read_text(run / "adapted/model.safetensors") +
           tests::read_text(run / "reconstructions/1.png");
  };
  const auto arguments = [&](const std::string& name) { return adapted_run(name); };
  EXPECT_GE(tests::expect_same_after_kills(scratch / "whole", {9, 30, 55, 80, 120}, arguments, whole), 4);
}

INSTANTIATE_TEST_SUITE_P(Sources, AdaptedImageRun,
                         testing::Values("vit-hf-classifier", "vit-timm-token", "vit-timm-avg", "vit-mae-pretraining",
                                         "rad-dino-classifier"),
                         [](const auto& info) {
                           std::string name = info.param;
                           for (auto& c : name)
                             if (c == '-') c = '_';
                           return name;
                         });

TEST(ImageAdapt, ABadImageOfTheCorpusStopsOrIsCounted) {
  const Scratch scratch;
  std::filesystem::copy(fixture("parity/vit-timm-token/model"), scratch / "source");
  write_images(scratch / "data");
  for (const auto* name : {"truncated.jpg", "text.jpg"})
    std::filesystem::copy_file(fixture("images/bad") / name, scratch / "data/train/above" / name);
  std::vector<std::string> adapt{"adapt",
                                 "--source",
                                 (scratch / "source").string(),
                                 "--quiet",
                                 "--json",
                                 "--corpus",
                                 (scratch / "data/train").string(),
                                 "--out",
                                 (scratch / "run").string()};
  for (const auto* setting : {"adapt.epochs=1", "adapt.head_epochs=0", "adapt.batch_size=8",
                              "adapt.held_out_fraction=0.3", "adapt.images.decoder_width=16",
                              "adapt.images.decoder_heads=2", "adapt.images.decoder_layers=1", "train.threads=1"})
    adapt.insert(adapt.end(), {"--set", setting});
  const auto refused = graft(adapt);
  EXPECT_EQ(refused.code, 3) << refused.err;
  EXPECT_NE(refused.err.find("above/t"), std::string::npos) << refused.err;
  std::filesystem::remove_all(scratch / "run");
  adapt.insert(adapt.end(), {"--set", "adapt.bad_rows=skip"});
  const auto outcome = graft(adapt);
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const auto result = Json::parse(outcome.out)["adapt"];
  EXPECT_EQ(result["skipped"], 2);
  EXPECT_EQ(result["images"], 24);
}

TEST(ImageAdapt, ASourceWithoutAnObjectiveIsRefused) {
  const Scratch scratch;
  std::filesystem::copy(fixture("parity/resnet-cifar/model"), scratch / "source");
  tests::write_text(scratch / "source" / "transform.json", R"({"resize_size": 32, "crop_size": 32})");
  write_images(scratch / "data");
  const auto outcome = graft({"adapt", "--source", (scratch / "source").string(), "--corpus",
                              (scratch / "data/train").string(), "--out", (scratch / "run").string()});
  EXPECT_EQ(outcome.code, 4);
  EXPECT_NE(outcome.err.find("graft has no objective to adapt a resnet with"), std::string::npos) << outcome.err;
}

INSTANTIATE_TEST_SUITE_P(Sources, ImageRun,
                         testing::Values("vit-hf-classifier", "resnet-timm-basic", "resnet-cifar",
                                         "efficientnet-torchvision", "swin-classifier", "vit-torchvision"),
                         [](const auto& info) {
                           std::string name = info.param;
                           for (auto& c : name)
                             if (c == '-') c = '_';
                           return name;
                         });

}  // namespace
}  // namespace graft
