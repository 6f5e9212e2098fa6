// The rules of the schedule, one at a time, on tiny models that are judged on what they learn from. A loss term looks at
// every step and changes its gradients or weights, so that a phase brings what the test wants it to bring.
#include "graft/finetune/schedule.h"

#include <gtest/gtest.h>

#include <cmath>
#include <optional>
#include <set>

#include "graft/core/error.h"
#include "tests/fixtures.h"
#include "tests/models/cases.h"

namespace graft::finetune {
namespace {

using tests::Case;
using tests::Scratch;

struct Place {
  int64_t phase, epoch;  // from 0; phase 0 is the head
  auto operator<=>(const Place&) const = default;
};

struct Probe final : train::LossTerm {
  torch::Tensor value(const train::Step& step) override {
    const Place place{phase, static_cast<int64_t>(step.epoch)};
    return poison && place == *poison && ++parts > 1 ? torch::full({}, NAN) : torch::Tensor();
  }
  double add_gradients(const train::WholeStep& step) override {
    const Place place{phase, static_cast<int64_t>(step.epoch)};
    if (step.step == 0) starts[place] = tests::tensors_of(step.model);
    const torch::NoGradGuard no_grad;
    if (still.contains(phase))
      for (const auto& item : step.model.parameters_by_key())
        if (item.value().grad().defined()) item.value().mutable_grad().zero_();
    if (spoiled.contains(place)) spoil(step.model);
    return 0;
  }
  /// The answer is always the first class, whatever one step changes.
  static void spoil(models::Model& model) {
    for (auto& item : model.parameters_by_key()) {
      if (!item.key().starts_with("classifier.")) continue;
      item.value().zero_();
      if (item.key() == "classifier.bias") item.value()[0] = 50;
    }
  }

  int64_t phase = 0;
  std::map<Place, Tensors> starts;  // weights at the first step of an epoch: those after the epoch before
  std::set<int64_t> still;          // phases without gradients
  std::set<Place> spoiled;          // epochs in whose every step the head is spoiled
  std::optional<Place> poison;      // an epoch whose second step has no finite loss
  int64_t parts = 0;
};

struct Course {
  explicit Course(const std::string& name = "bert_classification") : c(name, 1, 0.0) {
    at::set_num_threads(1);
    options.head = {.min_epochs = 1, .epochs = 1, .learning_rates = {1e-2}, .weight_decays = {0}};
    options.head.closed_form = options.head.verdict = false;
    options.unfreeze.learning_rate = options.unfreeze.head_learning_rate = 1e-2;
    options.full.when = "never";
    training.batch_size = 4;
    training.weight_decay = 0;
  }

  void run(const Json& from = {}, const Tensors& tensors = {}) {
    Setting setting{.model = *c.model};
    setting.task = c.task;
    setting.label_names = c.label_names;
    setting.train = setting.validation = {c.inputs.get(), &c.examples};
    setting.options = options;
    setting.training = training;
    setting.features_folder = scratch / "features";
    setting.terms = {probe};
    Hooks hooks;
    hooks.journal = [&](const std::string& event, const Json& fields) {
      journal[event].push_back(fields);
      probe->phase += event == "phase_end";
    };
    hooks.save = [&](const Json& state, const Tensors& saving, bool must) {
      if (!must) return;  // as between two savings of a run
      saved_state = state;
      saved.clear();
      for (const auto& [key, value] : saving) saved[key] = value.detach().clone();
    };
    report::Progress quiet(true);
    hooks.progress = &quiet;
    Schedule schedule(std::move(setting), hooks);
    if (!from.is_null()) schedule.resume(from, tensors);
    schedule.run();
    result = schedule.result();
  }

  std::vector<Json> of_phases(const char* field) {
    std::vector<Json> values;
    for (const auto& phase : journal["phase_end"]) values.push_back(phase.at(field));
    return values;
  }
  int64_t epochs_of(int64_t phase) { return journal["phase_end"].at(phase).at("epochs"); }
  int64_t best_epoch_of(int64_t phase) { return journal["phase_end"].at(phase).at("best_epoch"); }

  Case c;
  Scratch scratch;
  FinetuneOptions options;
  train::TrainOptions training;
  std::shared_ptr<Probe> probe = std::make_shared<Probe>();
  std::map<std::string, std::vector<Json>> journal;
  Json saved_state, result;
  Tensors saved;
};

/// Groups of which a tensor differs.
std::set<std::string> moved(const models::Model& model, const Tensors& a, const Tensors& b) {
  std::set<std::string> groups;
  for (const auto& [key, value] : a)
    if (!tests::same(value, b.at(key))) groups.insert(model.group_of(key));
  return groups;
}

TEST(Schedule, UnfreezingStopsAfterAsManyUnitsWithoutGainAsThePatienceSays) {
  for (const auto& [patience, units] : {std::pair{1, 1u}, {2, 2u}, {0, 4u}}) {
    Course course;
    course.options.unfreeze.epochs = 1;
    course.options.unfreeze.patience_units = patience;
    course.probe->still = {0, 1, 2, 3, 4};
    course.run();
    EXPECT_EQ(course.result["units"], units) << patience;
    EXPECT_EQ(course.journal["phase_end"].size(), 1 + units);
    const auto& decision = course.journal["decision"].at(units - 1);
    EXPECT_EQ(decision["about"], "unfreezing");
    EXPECT_EQ(decision["go_on"], false);
    const auto reason = decision["reason"].get<std::string>();
    EXPECT_NE(reason.find(patience ? "the metric has reached its plateau" : "nothing more to unfreeze"),
              std::string::npos)
        << reason;
  }
}

TEST(Schedule, AGainStartsThePatienceAnew) {
  Course course;
  course.options.unfreeze.epochs = 15;
  course.options.unfreeze.patience_units = 2;
  course.probe->still = {0, 1, 3, 4};
  course.run();
  ASSERT_EQ(course.result["units"], 4);
  std::vector<Json> improved;
  for (size_t i = 1; i < course.journal["phase_end"].size(); ++i)
    improved.push_back(course.journal["phase_end"][i]["improved"]);
  EXPECT_EQ(improved, (std::vector<Json>{false, true, false, false}));
}

TEST(Schedule, NoMoreUnitsThanTheRecipeAllows) {
  for (const int64_t most : {0, 2}) {
    Course course;
    course.options.unfreeze.epochs = 1;
    course.options.unfreeze.patience_units = 0;
    course.options.unfreeze.max_units = most;
    course.run();
    EXPECT_EQ(course.result["units"], most);
    EXPECT_EQ(course.journal["phase_end"].size(), static_cast<size_t>(1 + most));
  }
}

// Howard & Ruder 2018, 3.2: each unit further from the head learns `divisor` times slower.
TEST(Schedule, EachUnitLearnsAsFastAsItsPlaceSays) {
  Course course;
  course.training.batch_size = 12;  // one step an epoch, and Adam's first step is as long as its rate
  auto& unfreeze = course.options.unfreeze;
  unfreeze.epochs = 2;
  unfreeze.patience_units = 0;
  unfreeze.learning_rate = 1e-3;
  unfreeze.head_learning_rate = 3e-3;
  unfreeze.divisor = 2;
  course.run();
  const auto& model = *course.c.model;
  const auto units = unfreezing_order(model, unfreeze);
  ASSERT_EQ(units.size(), 4u);
  const double at_first = (1 - 1.0 / 3) / 0.9;  // the schedule's factor one third of the way, after the warm-up
  for (int64_t k = 1; k <= 4; ++k) {
    std::map<std::string, double> longest;
    const auto &from = course.probe->starts.at({k, 0}), &to = course.probe->starts.at({k, 1});
    for (const auto& [key, value] : from) {
      auto& found = longest[model.group_of(key)];
      found = std::max(found, (to.at(key) - value).abs().max().item<double>());
    }
    EXPECT_NEAR(longest.at("head"), 3e-3 * at_first, 3e-5);
    for (int64_t u = 0; u < 4; ++u) {
      const double rate = u < k ? 1e-3 / std::pow(2, u) : 0;
      EXPECT_NEAR(longest.at(units[u]), rate * at_first, 0.01 * rate) << units[u] << " in phase " << k;
    }
  }
}

TEST(Schedule, TheOrderMayBeginAtTheInput) {
  for (const auto& name : tests::case_names()) {
    const Case c(name);
    auto last = unfreezing_order(*c.model, {}), first = unfreezing_order(*c.model, {.order = "first_first"});
    auto all = c.model->all_groups();
    all.erase("head");
    EXPECT_EQ(std::set<std::string>(first.begin(), first.end()), all) << name;
    std::reverse(last.begin(), last.end());
    EXPECT_EQ(first, last) << name;
  }
  for (const auto* order : {"last_first", "first_first"}) {
    const bool from_head = std::string(order) == "last_first";
    Course course;
    course.options.unfreeze = {.max_units = 2, .epochs = 1, .patience_units = 0, .order = order};
    course.run();
    const auto units = unfreezing_order(*course.c.model, course.options.unfreeze);
    EXPECT_EQ(units.front(), from_head ? "layer 2" : "embeddings");
    EXPECT_EQ(units.back(), from_head ? "embeddings" : "layer 2");
    EXPECT_EQ(course.journal["phase_end"][1]["unit"], units[0]);
    EXPECT_EQ(course.journal["phase_end"][2]["unit"], units[1]);
    auto& starts = course.probe->starts;
    EXPECT_FALSE(moved(*course.c.model, starts.at({1, 0}), starts.at({2, 0})).contains(units[1]));
    EXPECT_EQ(course.journal["frozen"].size(), 3u);
  }
}

TEST(Schedule, APhaseStartsFromTheBestWeightsOfTheOneBefore) {
  Course course;
  course.options.head.min_epochs = course.options.head.epochs = 4;
  course.options.unfreeze = {.max_units = 2, .epochs = 4, .patience_units = 0, .learning_rate = 1e-2};
  course.options.full = {.when = "always", .epochs = 4, .patience = 0, .learning_rate = 1e-3};
  for (int64_t phase = 0; phase < 4; ++phase) course.probe->spoiled.insert({phase, 3});
  course.run();
  ASSERT_EQ(course.journal["phase_end"].size(), 4u);
  double before = 0;
  for (int64_t phase = 0; phase < 4; ++phase) {
    EXPECT_EQ(course.epochs_of(phase), 4);
    ASSERT_LT(course.best_epoch_of(phase), 4) << "the last epoch was spoiled";
    const auto after = phase < 3 ? course.probe->starts.at({phase + 1, 0}) : tests::tensors_of(*course.c.model);
    for (const auto& [key, value] : course.probe->starts.at({phase, course.best_epoch_of(phase)}))
      EXPECT_TRUE(tests::same(after.at(key), value)) << key << " after phase " << phase;
    const double metric = course.journal["phase_end"][phase]["validation"];
    EXPECT_GE(metric, before) << "no phase ends below its start";
    before = metric;
  }
  EXPECT_EQ(course.result["validation"], before);
}

TEST(Schedule, APhaseThatBringsNothingLeavesTheWeights) {
  Course course;
  course.options.head.min_epochs = course.options.head.epochs = 10;
  course.options.unfreeze = {.max_units = 1, .epochs = 3};
  for (int64_t epoch = 0; epoch < 3; ++epoch) course.probe->spoiled.insert({1, epoch});
  course.run();
  EXPECT_EQ(course.epochs_of(1), 3);
  EXPECT_EQ(course.best_epoch_of(1), 0);
  EXPECT_EQ(course.of_phases("gain")[1], 0.0);
  EXPECT_EQ(course.of_phases("validation")[1], course.of_phases("validation")[0]);
  auto& starts = course.probe->starts;
  EXPECT_EQ(moved(*course.c.model, starts.at({1, 0}), tests::tensors_of(*course.c.model)), std::set<std::string>{});
  EXPECT_FALSE(moved(*course.c.model, starts.at({1, 0}), starts.at({1, 2})).empty()) << "it did train";
}

TEST(Schedule, TheHeadStopsWhenItsMetricHasSettledButNotEarlierThanAsked) {
  struct Row {
    int64_t min_epochs, epochs, patience, expected;
  };
  for (const auto& row : {Row{5, 10, 2, 5}, {1, 10, 2, 3}, {1, 10, 0, 10}, {5, 4, 2, 4}, {1, 10, 4, 5}}) {
    Course course;
    auto& head = course.options.head;
    head.min_epochs = row.min_epochs, head.epochs = row.epochs, head.patience = row.patience;
    course.options.unfreeze.max_units = 0;
    course.probe->still = {0};
    course.run();
    EXPECT_EQ(course.epochs_of(0), row.expected) << row.min_epochs << " " << row.epochs << " " << row.patience;
    EXPECT_EQ(course.best_epoch_of(0), 1);
  }
}

TEST(Schedule, FullFineTuningIsDecidedByTheStatedRule) {
  struct Row {
    std::string when;
    int64_t min_examples, a_group, units;
    bool learns, due;
    std::string reason;
  };
  const std::vector<Row> rows{
      {"always", 1000, 100, 1, false, true, "the recipe asks for it"},
      {"never", 1, 1, 1, true, false, "the recipe forbids it"},
      {"auto", 13, 1, 1, true, false, "12 training examples are fewer than the 13 that it wants"},
      {"auto", 12, 3, 1, true, false, "12 training examples for 5 groups of parameters are fewer than 3 a group"},
      {"auto", 12, 2, 1, false, false, "unfreezing brought +0.0000 over the head alone"},
      {"auto", 12, 2, 1, true, true, "12 training examples for 5 groups, and unfreezing brought +0."},
      {"auto", 12, 2, 0, false, true, "12 training examples for 5 groups"},
  };
  for (const auto& row : rows) {
    Course course;
    course.options.unfreeze.max_units = row.units;
    course.options.unfreeze.epochs = 15;
    course.options.full = {.when = row.when, .epochs = 1};
    course.options.full.min_examples = row.min_examples;
    course.options.full.min_examples_per_group = row.a_group;
    course.probe->still = row.learns ? std::set<int64_t>{0} : std::set<int64_t>{0, 1};
    course.run();
    const auto& decision = course.journal["decision"].back();
    EXPECT_EQ(decision["about"], "full fine-tuning");
    EXPECT_EQ(decision["go_on"], row.due) << row.reason;
    EXPECT_NE(decision["reason"].get<std::string>().find(row.reason), std::string::npos) << decision;
    EXPECT_EQ(course.journal["phase_end"].back()["phase"] == "full", row.due);
  }
}

TEST(Schedule, ALossThatIsNotFiniteLeavesTheBestWeightsInACheckpointThatGoesOn) {
  const auto prepare = [](Course& course) {
    course.options.unfreeze = {.max_units = 2, .epochs = 6, .patience_units = 0, .learning_rate = 1e-2};
    course.options.unfreeze.head_learning_rate = 1e-2;
    course.probe->still = {0, 1};
  };
  Course unbroken;
  prepare(unbroken);
  unbroken.run();

  Course broken;
  prepare(broken);
  broken.probe->poison = Place{2, 3};
  try {
    broken.run();
    FAIL() << "the loss was NaN";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind, Kind::numerical);
    EXPECT_TRUE(std::string(e.what()).starts_with("unfreeze 2, epoch 4, step 2: the loss is nan")) << e.what();
    EXPECT_NE(std::string(e.what()).find("The best weights so far are in the run's newest checkpoint"),
              std::string::npos);
  }
  int64_t best = 0;
  for (const auto& epoch : broken.journal["epoch"])
    if (epoch["phase"] == "unfreeze 2" && epoch["best"].get<bool>()) best = epoch["epoch"];
  ASSERT_GT(best, 0) << "there are weights that are better than those of the last phase";
  EXPECT_EQ(broken.saved_state["phase"]["epoch"], 3);
  EXPECT_EQ(broken.saved_state["phase"]["best_epoch"], best);
  int64_t held = 0;
  for (const auto& [key, value] : broken.probe->starts.at({2, best})) {
    const auto found = broken.saved.find("best." + key);
    if (found == broken.saved.end()) continue;
    ++held;
    EXPECT_TRUE(tests::same(found->second, value)) << key;
  }
  EXPECT_GT(held, 10);

  Course resumed;
  prepare(resumed);
  resumed.probe->phase = 2;
  resumed.run(broken.saved_state, broken.saved);
  const auto expected = tests::tensors_of(*unbroken.c.model);
  for (const auto& [key, value] : tests::tensors_of(*resumed.c.model))
    EXPECT_TRUE(tests::same(expected.at(key), value)) << key;
}

}  // namespace
}  // namespace graft::finetune
