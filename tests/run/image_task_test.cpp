// Image files through the image task into the schedule, on a toy image model.
#include "graft/run/image_task.h"

#include <gtest/gtest.h>

#include "graft/core/error.h"
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

TEST(ImageTask, SettingsTravelWithTheWeights) {
  const Scratch scratch;
  Prepared p(scratch);
  EXPECT_EQ(p.task.files(*p.model).at("transform.json"), tests::read_text(scratch / "source/transform.json"));
  EXPECT_EQ(p.task.settings(*p.model)["preprocessing"]["crop"], (Json{16, 16}));
}

}  // namespace
}  // namespace graft
