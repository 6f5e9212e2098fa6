// Image files through the image task into the schedule, on a toy image model.
#include "graft/run/image_task.h"

#include <gtest/gtest.h>

#include <cstdio>

#include "graft/core/error.h"
#include "graft/data/images/encode.h"
#include "graft/finetune/schedule.h"
#include "graft/train/supervised.h"
#include "tests/run/toy_images.h"

namespace graft {
namespace {

namespace fs = std::filesystem;

using tests::message_of;
using tests::Scratch;

struct Prepared {
  explicit Prepared(const Scratch& scratch, data::ImageOptions options = {})
      : source(tests::toy_image_source(scratch / "source")), task(source, options) {
    tests::write_toy_images(scratch / "data/train", 20, 1);
    tests::write_toy_images(scratch / "data/val", 8, 2);
    torch::manual_seed(3);
    model = source.architecture->create(source.config, {"classification", 3});
  }
  data::Dataset read(const Scratch& scratch) {
    data::DataOptions options;
    options.path = (scratch / "data").string();
    return task.read(options, 0, {});
  }
  models::Source source;
  run::ImageTask task;
  std::shared_ptr<models::Model> model;
};

TEST(ImageTask, GivesPixelValuesOfTheModelsSize) {
  const Scratch scratch;
  Prepared p(scratch);
  auto dataset = p.read(scratch);
  EXPECT_EQ(dataset.label_names, (std::vector<std::string>{"2", "10", "red"}));
  const auto train = p.task.prepare(*p.model, dataset.train, {.split = "training"});
  EXPECT_EQ(train.inputs->size(), 60);
  const auto batch = train.inputs->batch("image", {5, 3});
  EXPECT_EQ(batch.kept.at("pixel_values").values.sizes(), (std::vector<int64_t>{2, 3, 16, 16}));
  EXPECT_EQ(batch.kept.at("pixel_values").lengths, (std::vector<int64_t>{1, 1}));
  // What is not kept in memory is decoded again, to the same values and the same hash.
  run::ImageTask lean(p.source, {.cache_gb = 0});
  data::DataOptions options;
  options.path = (scratch / "data").string();
  auto same = lean.read(options, 0, {});
  const auto again = lean.prepare(*p.model, same.train, {.split = "training"});
  EXPECT_TRUE(
      again.inputs->batch("image", {5, 3}).kept.at("pixel_values").values.equal(batch.kept.at("pixel_values").values));
  EXPECT_EQ(again.inputs->hash(), train.inputs->hash());
}

TEST(ImageTask, ABadImageStopsOrIsSkippedAndCounted) {
  const Scratch scratch;
  Prepared p(scratch);
  for (const auto* name : {"truncated.jpg", "bomb.png", "empty.png", "text.jpg"}) {
    fs::copy_file(tests::fixture("images/bad") / name, scratch / "data/train/10" / name);
  }
  auto dataset = p.read(scratch);
  EXPECT_EQ(dataset.train.size(), 64);
  const auto message = message_of([&] { p.task.prepare(*p.model, dataset.train, {.split = "training"}); });
  EXPECT_NE(message.find("train/10/bomb.png: has 100000 x 100000 pixels"), std::string::npos) << message;
  const auto train = p.task.prepare(*p.model, dataset.train, {.split = "training", .bad_rows = data::BadRows::skip});
  EXPECT_EQ(train.skipped.count, 4);
  EXPECT_EQ(train.inputs->size(), 60);
  EXPECT_EQ(dataset.train.size(), 60);
  EXPECT_EQ(dataset.train.labels.size(), 60u);
  EXPECT_NE(train.note.find("4 training images were skipped"), std::string::npos) << train.note;
}

TEST(ImageTask, TheScheduleLearnsFromImagesWithAndWithoutTheStore) {
  std::vector<Json> results;
  for (const bool stored : {true, false}) {
    const Scratch scratch;
    Prepared p(scratch);
    auto dataset = p.read(scratch);
    const auto train = p.task.prepare(*p.model, dataset.train, {.split = "training"}),
               validation = p.task.prepare(*p.model, dataset.validation, {.split = "validation"});
    finetune::Setting setting{.model = *p.model};
    setting.random_copy = [&] {
      torch::manual_seed(4);
      return p.source.architecture->create(p.source.config, {"classification", 3});
    };
    setting.task = dataset.task;
    setting.label_names = dataset.label_names;
    setting.train = {train.inputs.get(), &dataset.train, nullptr};
    setting.validation = {validation.inputs.get(), &dataset.validation, nullptr};
    setting.options.head.epochs = 30;
    setting.options.head.min_epochs = 20;
    setting.options.head.learning_rates = {3e-2};
    setting.training.batch_size = 8;
    setting.options.unfreeze.epochs = 2;
    setting.options.full.when = "always";
    setting.options.full.epochs = 2;
    setting.store.enabled = stored;
    setting.features_folder = scratch / "features";
    report::Progress progress(true);
    finetune::Hooks hooks;
    hooks.journal = [](const std::string&, Json) {};
    hooks.progress = &progress;
    finetune::Schedule schedule(std::move(setting), hooks);
    schedule.run();
    results.push_back(schedule.result());
  }
  EXPECT_EQ(results[0]["phases"].size(), results[1]["phases"].size());
  for (size_t i = 0; i < results[0]["phases"].size(); ++i)
    EXPECT_NEAR(results[0]["phases"][i]["validation"].get<double>(),
                results[1]["phases"][i]["validation"].get<double>(), 0.05);
  EXPECT_GT(results[0]["phases"].back()["validation"].get<double>(), 0.9);
}

TEST(ImageTask, ViewsDifferByEpochAndAreTheSameHoweverTheyAreMade) {
  const Scratch scratch;
  data::ImageOptions options;
  options.augment.enabled = true;
  Prepared p(scratch, options);
  auto dataset = p.read(scratch);
  const auto values = [&](const features::Inputs& inputs, const std::vector<int64_t>& examples, uint64_t view) {
    return inputs.batch_view("image", examples, view).kept.at("pixel_values").values;
  };
  const auto train = p.task.prepare(*p.model, dataset.train, {.split = "training", .training_seed = 7}),
             again = p.task.prepare(*p.model, dataset.train, {.split = "training", .training_seed = 7}),
             plain = p.task.prepare(*p.model, dataset.train, {.split = "training"});
  const std::vector<int64_t> batch{4, 9, 2, 30};
  const auto first = values(*train.inputs, batch, 1);
  EXPECT_FALSE(first.equal(values(*train.inputs, batch, 2)));
  EXPECT_TRUE(values(*train.inputs, batch, 0).equal(values(*plain.inputs, batch, 0)));
  EXPECT_TRUE(values(*plain.inputs, batch, 1).equal(values(*plain.inputs, batch, 0)));
  // Made ahead on other threads, in parts, or at once: the same.
  again.inputs->expect(batch, 1);
  EXPECT_TRUE(values(*again.inputs, {4, 9}, 1).equal(first.narrow(0, 0, 2)));
  EXPECT_TRUE(values(*again.inputs, {2, 30}, 1).equal(first.narrow(0, 2, 2)));
  EXPECT_TRUE(values(*again.inputs, {30}, 1).equal(first.narrow(0, 3, 1)));
}

TEST(ImageTask, StoredViewsAreFurtherExamplesThatStayAsTheyAre) {
  const Scratch scratch;
  data::ImageOptions options;
  options.augment.enabled = true;
  options.augment.views = 3;
  Prepared p(scratch, options);
  fs::copy_file(tests::fixture("images/bad/empty.png"), scratch / "data/train/10/0000.png");
  auto dataset = p.read(scratch);
  const auto train = p.task.prepare(*p.model, dataset.train,
                                    {.split = "training", .training_seed = 7, .bad_rows = data::BadRows::skip});
  EXPECT_EQ(train.skipped.count, 1);
  EXPECT_EQ(dataset.train.size(), 60);
  ASSERT_EQ(train.inputs->size(), 180);
  ASSERT_TRUE(train.repeated);
  EXPECT_EQ(train.repeated->size(), 180);
  EXPECT_EQ(train.repeated->labels[7], train.repeated->labels[127]);
  const auto batch = train.inputs->batch("image", {7, 67, 127}).kept.at("pixel_values").values;
  EXPECT_FALSE(batch[0].equal(batch[1]));
  EXPECT_FALSE(batch[1].equal(batch[2]));
  options.cache_gb = 0;
  run::ImageTask lean(p.source, options);
  data::DataOptions data_options;
  data_options.path = (scratch / "data").string();
  auto same = lean.read(data_options, 0, {});
  const auto again =
      lean.prepare(*p.model, same.train, {.split = "training", .training_seed = 7, .bad_rows = data::BadRows::skip});
  EXPECT_EQ(again.inputs->hash(), train.inputs->hash());
  EXPECT_TRUE(again.inputs->batch("image", {7, 67, 127}).kept.at("pixel_values").values.equal(batch));
}

TEST(ImageTask, BlendedImagesHaveBlendedLosses) {
  for (const bool cut : {false, true}) {
    const Scratch scratch;
    data::ImageOptions options;
    options.augment = {.enabled = true, .smallest_crop = 1, .flip_horizontal = 0};
    (cut ? options.augment.cutmix : options.augment.mixup) = 1;
    Prepared p(scratch, options);
    auto dataset = p.read(scratch);
    const auto train = p.task.prepare(*p.model, dataset.train, {.split = "training", .training_seed = 7});
    const std::vector<int64_t> batch{4, 29, 42, 30};
    int blended = 0;
    for (uint64_t view = 1; view < 12; ++view) {
      const auto blend = train.inputs->blend(batch, view);
      if (!blend) continue;
      ++blended;
      EXPECT_EQ(blend->partners, train.inputs->blend(batch, view)->partners);
      const auto values = train.inputs->batch_view("image", batch, view).kept.at("pixel_values").values;
      for (size_t i = 0; i < batch.size(); ++i) {
        const auto
            own = train.inputs->batch_view("image", {batch[i]}, view).kept.at("pixel_values").values[0],
            partner =
                train.inputs->batch_view("image", {batch[blend->partners[i]]}, view).kept.at("pixel_values").values[0];
        const auto at = static_cast<int64_t>(i);
        EXPECT_TRUE(cut ? ((values[at] == own) | (values[at] == partner)).all().item<bool>()
                        : torch::allclose(values[at], blend->share * own + (1 - blend->share) * partner, 1e-4, 1e-5));
      }
      p.model->unfreeze_only({"head", "stem", "layer"});
      const features::Feed feed(*p.model, *train.inputs);
      const train::Supervised stream(*p.model, feed, "classification", dataset.label_names, dataset.train);
      const models::Outputs outputs{{"logits", torch::randn({4, 3})}};
      const auto hot = [&](size_t i) {
        return torch::one_hot(torch::tensor(dataset.train.labels[batch[i]]), 3).to(torch::kFloat32);
      };
      auto expected = torch::zeros({});
      for (size_t i = 0; i < batch.size(); ++i)
        expected = expected - (outputs.at("logits")[static_cast<int64_t>(i)].log_softmax(0) *
                               (blend->share * hot(i) + (1 - blend->share) * hot(blend->partners[i])))
                                  .sum();
      EXPECT_TRUE(torch::allclose(stream.loss_sum(outputs, batch, view - 1), expected, 1e-4, 1e-5));
      // In evaluation, and behind a frozen block, nothing is blended.
      const auto whole = stream.loss_sum(outputs, batch, train::kEvaluation);
      p.model->unfreeze_only({"head"});
      EXPECT_TRUE(stream.loss_sum(outputs, batch, view - 1).equal(whole));
    }
    EXPECT_GT(blended, 5);
  }
}

TEST(ImageTask, FastDecodingSaysHowMuchItChanges) {
  const Scratch scratch;
  Prepared p(scratch, {.fast_decode = true});
  auto dataset = p.read(scratch);
  const auto train = p.task.prepare(*p.model, dataset.train, {.split = "training", .training_seed = 0});
  EXPECT_EQ(train.note, "fast_decode changes a sample by 0.00 of 255 levels on average");  // PNG has no smaller decode
}

TEST(ImageTask, FastDecodingOfAJpegIsMeasured) {
  const Scratch scratch;
  Prepared p(scratch, {.fast_decode = true});
  fs::remove_all(scratch / "data/train");
  for (const auto* label : {"2", "10", "red"})  // 45 x 37, decoded at half its size for 18
    for (const auto* name : {"jpeg-444.jpg", "jpeg-420.jpg"}) {
      fs::create_directories(scratch / "data/train" / label);
      fs::copy_file(tests::fixture("images/decode") / name, scratch / "data/train" / label / name);
    }
  auto dataset = p.read(scratch);
  const auto train = p.task.prepare(*p.model, dataset.train, {.split = "training", .training_seed = 0});
  double deviation = 0;
  ASSERT_EQ(std::sscanf(train.note.c_str(), "fast_decode changes a sample by %lf of 255 levels on average", &deviation),
            1)
      << train.note;
  EXPECT_GT(deviation, 0.1);
  EXPECT_LT(deviation, 20);
}

TEST(ImageTask, AnImageBelowAPatchIsNamedOrSkipped) {
  const Scratch scratch;
  Prepared p(scratch);
  p.source.config["patch_size"] = 22;  // images are 24 x 20
  auto dataset = p.read(scratch);
  const auto message = message_of([&] { p.task.prepare(*p.model, dataset.train, {.split = "training"}); });
  EXPECT_NE(message.find("10/0.png: has 24 x 20 pixels, less than one patch of the model (22 x 22)"), std::string::npos)
      << message;
  data::Image large(24, 24, 3);
  tests::write_text(scratch / "data/train/10/large.png", data::encode_png(large));
  auto mixed = p.read(scratch);
  const auto train = p.task.prepare(*p.model, mixed.train, {.split = "training", .bad_rows = data::BadRows::skip});
  EXPECT_EQ(train.skipped.count, 60);
  EXPECT_EQ(train.inputs->size(), 1);
  p.source.config.erase("patch_size");
  p.source.config["vit"] = {{"patch_size", 20}};  // what the tensors of a source without configuration told
  EXPECT_EQ(p.task.prepare(*p.model, mixed.train, {.split = "training"}).inputs->size(), 1);
}

TEST(ImageTask, ImagesOfAllKindsOfChannelsAreOfThree) {
  const Scratch scratch;
  Prepared p(scratch);
  fs::remove_all(scratch / "data/train");
  for (const auto& [label, name] : {std::pair{"2", "png-gray.png"},
                                    {"2", "png-rgba.png"},
                                    {"10", "png-palette-transparent.png"},
                                    {"10", "jpeg-cmyk.jpg"},
                                    {"red", "png-gray-alpha.png"},
                                    {"red", "tiff-gray-deflate.tif"},
                                    {"red", "png-1bit.png"}}) {
    fs::create_directories(scratch / "data/train" / label);
    fs::copy_file(tests::fixture("images/decode") / name, scratch / "data/train" / label / name);
  }
  auto dataset = p.read(scratch);
  const auto train = p.task.prepare(*p.model, dataset.train, {.split = "training"});
  ASSERT_EQ(train.inputs->size(), 7);
  const auto values = train.inputs->batch("image", {0, 1, 2, 3, 4, 5, 6}).kept.at("pixel_values").values;
  EXPECT_EQ(values.sizes(), (std::vector<int64_t>{7, 3, 16, 16}));
  for (int64_t i = 0; i < 7; ++i) EXPECT_GT(values[i].std().item<double>(), 0.05) << dataset.train.texts.text(i);
}

TEST(ImageTask, WhatIsNotKeptIsDecodedAheadOfTheStep) {
  const Scratch scratch;
  Prepared p(scratch, {.cache_gb = 0});
  auto dataset = p.read(scratch);
  const auto train = p.task.prepare(*p.model, dataset.train, {.split = "training"});
  const auto values = [&](const std::vector<int64_t>& examples, uint64_t view) {
    return train.inputs->batch_view("image", examples, view).kept.at("pixel_values").values;
  };
  const auto before = values({4, 9, 30}, 1);
  train.inputs->expect({30, 9, 4}, 1);
  EXPECT_TRUE(values({4}, 1).equal(before.narrow(0, 0, 1)));  // waits for the whole batch
  fs::remove_all(scratch / "data/train");
  EXPECT_TRUE(values({4, 9, 30}, 1).equal(before));
  EXPECT_TRUE(train.inputs->batch("image", {9}).kept.at("pixel_values").values.equal(before.narrow(0, 1, 1)));
  EXPECT_NE(message_of([&] { values({5}, 1); }).find("there is no such image"), std::string::npos);
}

TEST(ImageTask, ManyBandsAreAsManyChannels) {
  const Scratch scratch;
  const Json config{{"model_type", "vit"},      {"hidden_size", 16},       {"num_hidden_layers", 1},
                    {"num_attention_heads", 2}, {"intermediate_size", 24}, {"image_size", 10},
                    {"patch_size", 5},          {"num_channels", 5}};
  const models::Source source{
      .folder = tests::fixture("images/bands"), .config = config, .architecture = &models::find_architecture(config)};
  const auto model = source.architecture->create(config, {"classification", 2});
  for (const auto* label : {"a", "b"}) {
    fs::create_directories(scratch / "data" / label);
    for (const auto* name : {"uint16.tif", "float.tif"})
      fs::copy_file(source.folder / name, scratch / "data" / label / name);
  }
  const auto prepared = [&](data::ImageOptions options, data::BadRows bad_rows = data::BadRows::stop) {
    run::ImageTask task(source, options);
    auto listed = task.list({(scratch / "data").string()});
    return task.prepare(*model, listed, {.split = "training", .training_seed = 1, .bad_rows = bad_rows});
  };
  const auto kept = prepared({}), decoded = prepared({.cache_gb = 0});
  const auto values = [](const run::Prepared& p) {
    return p.inputs->batch("image", {0, 1, 2, 3}).kept.at("pixel_values").values;
  };
  EXPECT_EQ(values(kept).sizes(), (std::vector<int64_t>{4, 5, 10, 10}));
  EXPECT_TRUE(values(kept).equal(values(decoded)));
  EXPECT_EQ(kept.inputs->hash(), decoded.inputs->hash());
  const torch::NoGradGuard no_grad;
  EXPECT_EQ(model->forward("image", 0, 2, kept.inputs->batch("image", {0, 1}), {}).hidden.values.size(0), 10);
  // An image of three bands is named, a view cannot be drawn, and a model of other channels is told from the start.
  fs::copy_file(tests::fixture("images/decode/png-rgb.png"), scratch / "data/b/colours.png");
  EXPECT_NE(message_of([&] { prepared({}); }).find("colours.png: has 3 bands, the model takes 5"), std::string::npos);
  EXPECT_EQ(prepared({}, data::BadRows::skip).skipped.count, 1);
  data::ImageOptions views;
  views.augment.enabled = true;
  EXPECT_NE(message_of([&] { prepared(views); }).find("images.augment: views are drawn of images with three channels"),
            std::string::npos);
  auto other = source;
  other.config["num_channels"] = 4;
  EXPECT_NE(
      message_of([&] { run::ImageTask(other, {}); }).find("its mean and std are of 5 channels, the model takes 4"),
      std::string::npos);
}

TEST(ImageTask, SettingsTravelWithTheWeights) {
  const Scratch scratch;
  Prepared p(scratch);
  EXPECT_EQ(p.task.files(*p.model).at("transform.json"), tests::read_text(scratch / "source/transform.json"));
  EXPECT_EQ(p.task.settings(*p.model)["preprocessing"]["crop"], (Json{16, 16}));
}

}  // namespace
}  // namespace graft
