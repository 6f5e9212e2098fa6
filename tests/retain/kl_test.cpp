// KL to the source as a term: its teachers say the same, it holds the source, its coefficient finds the target.
#include "graft/retain/kl.h"

#include <gtest/gtest.h>

#include "graft/core/random.h"
#include "graft/models/lora.h"
#include "graft/retain/replay.h"
#include "graft/train/causal_text.h"
#include "tests/models/cases.h"

namespace graft::retain {
namespace {

using namespace tests;

/// Random texts with some positions that do not count, for a tiny decoder.
struct Texts {
  explicit Texts(const std::string& name = "llama_causal_lm", uint64_t seed = 1) : c(name, seed, 0.0) {
    at::set_num_threads(1);
    Random random(9);
    for (int64_t i = 0; i < c.inputs->size(); ++i) {
      std::vector<int32_t> row(c.inputs->length(i));
      for (auto& label : row) label = random.uniform() < 0.3 ? -100 : static_cast<int32_t>(random.below(37));
      labels.push_back(row);
    }
  }
  Case c;
  data::Ragged<int32_t> labels;
  models::Model& model = *c.model;

  /// What it trains on, for any model of the family.
  std::shared_ptr<train::Stream> on(models::Model& other) const {
    struct Fed {
      Fed(models::Model& model, const features::Inputs& inputs, const data::Ragged<int32_t>& labels)
          : feed(model, inputs), stream(model, feed, labels) {}
      features::Feed feed;
      train::CausalText stream;
    };
    const auto fed = std::make_shared<Fed>(other, *c.inputs, labels);
    return {fed, &fed->stream};
  }
  std::shared_ptr<Teacher> teacher(models::Model& tuned, const std::string& name = "llama_causal_lm") const {
    return std::make_shared<Teacher>(
        tuned, [name] { return Case(name, 1, 0.0).model; },
        [this](models::Model& source, const std::vector<int64_t>& examples, uint64_t epoch) {
          return on(source)->enter(examples, epoch);
        });
  }
  void move(models::Model& tuned, const std::string& only = "") const {
    const torch::NoGradGuard no_grad;
    torch::manual_seed(8);
    for (auto& item : tuned.parameters_by_key())
      if (item.value().requires_grad() && item.key().find(only) != std::string::npos)
        item.value() += 0.1 * torch::randn_like(item.value());
  }
};

struct Asked {
  Asked(models::Model& model, train::LossTerm& term, const train::Stream& stream,
        const std::vector<int64_t>& examples) {
    const auto entering = stream.enter(examples, 0);
    const auto reads = stream.reads(examples, 0);
    const auto ends = train::ends_behind(model, entering, reads);
    const auto outputs = model.head->forward(ends);
    value = term.value({model, examples, ends, outputs, 0, &entering, &reads});
    if (!value.defined() || !value.requires_grad()) return;
    value.backward();
    for (auto& item : model.parameters_by_key()) {
      if (item.value().grad().defined()) gradients[item.key()] = item.value().grad().clone();
      item.value().mutable_grad() = Tensor();
    }
  }
  double largest() const {
    double largest = 0;
    for (const auto& [key, gradient] : gradients) largest = std::max(largest, gradient.abs().max().item<double>());
    return largest;
  }
  Tensor value;
  std::map<std::string, Tensor> gradients;
};

void expect_equal(const Asked& a, const Asked& b, double tolerance) {
  EXPECT_NEAR(a.value.item<double>(), b.value.item<double>(), tolerance * b.value.item<double>());
  ASSERT_EQ(a.gradients.size(), b.gradients.size());
  for (const auto& [key, gradient] : b.gradients)
    EXPECT_LE((a.gradients.at(key) - gradient).abs().max().item<double>(), tolerance * b.largest()) << key;
}

const std::vector<int64_t> kExamples{0, 3, 4, 7, 11};

class KlOf : public testing::TestWithParam<std::string> {};

TEST_P(KlOf, TheSourceItselfIsPulledNowhereAndAMovedModelTowardsIt) {
  const Texts texts(GetParam());
  auto& model = texts.model;
  for (const auto& trainable : trainable_sets(model)) {
    model.unfreeze_only(trainable);
    Kl term({.coefficient = 0.5}, texts.teacher(model, GetParam()));
    const auto before = tensors_of(model);
    const Asked still(model, term, *texts.on(model), kExamples);
    if (!still.value.defined()) continue;  // only what no token's distribution hangs on would learn
    EXPECT_NEAR(still.value.item<float>(), 0, 1e-9) << "but for the rounding of attention with and without gradient";
    EXPECT_LT(still.largest(), 1e-6);
    texts.move(model);
    const Asked moved(model, term, *texts.on(model), kExamples);
    EXPECT_GT(moved.value.item<float>(), 1e-6);
    EXPECT_GT(moved.largest(), 1e-4);
    const torch::NoGradGuard no_grad;
    for (auto& item : model.parameters_by_key()) item.value().copy_(before.at(item.key()));
  }
}

TEST_P(KlOf, EveryTeacherSaysTheSameAsTheWholeSource) {
  for (const auto direction : {"tuned_source", "source_tuned"}) {
    const Texts texts(GetParam());
    auto& model = texts.model;
    const auto teacher = texts.teacher(model, GetParam());
    ASSERT_EQ(teacher->kind(), Teacher::Kind::suffix);
    Kl live({.coefficient = 1, .direction = direction}, teacher);
    for (const auto& trainable : {std::set<std::string>{"head"}, {"head", "layer 2"}, all_groups(model)}) {
      model.unfreeze_only(trainable);
      texts.move(model);
      const Asked asked(model, live, *texts.on(model), kExamples);
      // By hand: the whole source on the same texts.
      const auto source = Case(GetParam(), 1, 0.0).model;
      source->unfreeze_only({});
      source->eval();
      const auto logits_of = [&](models::Model& m) {
        auto entering = texts.on(m)->enter(kExamples, 0);
        const auto labels = entering.at("text").kept.at("labels").values;
        entering.at("text").kept.erase("labels");
        return train::forward_behind(m, entering, std::nullopt)
            .at("logits")
            .index_select(0, labels.ge(0).nonzero().squeeze(1));
      };
      const auto p = logits_of(model).log_softmax(1), q = logits_of(*source).log_softmax(1);
      const auto sum = direction == std::string("tuned_source") ? (p.exp() * (p - q)).sum() : (q.exp() * (q - p)).sum();
      const auto expected = sum.item<double>() / p.size(0);
      EXPECT_NEAR(asked.value.item<double>(), expected, 1e-5 * expected + 1e-7);
      // Everything that is stored: as good as live.
      const StoredAnswers all(*teacher, *texts.on(*source), 37, kl_direction(direction), 13);
      Kl stored({.coefficient = 1, .direction = direction}, teacher, {std::shared_ptr<void>(), &all});
      expect_equal(Asked(model, stored, *texts.on(model), kExamples), asked, 2e-5);
    }
  }
}

TEST_P(KlOf, InTheHeadsOwnChunksItIsTheSame) {
  const Texts texts(GetParam());
  auto& model = texts.model;
  const auto teacher = texts.teacher(model, GetParam());
  for (const auto& trainable : {std::set<std::string>{"head", "layer 2"}, all_groups(model)}) {
    model.unfreeze_only(trainable);
    texts.move(model);
    const auto stream = texts.on(model);
    const auto entering = stream->enter(kExamples, 0);
    const auto reads = stream->reads(kExamples, 0);
    const auto step = [&](bool joined) {
      Kl term({.coefficient = 0.7}, teacher);
      const auto ends = train::ends_behind(model, entering, reads);
      if (joined) term.before_head({model, kExamples, ends, {}, 0, &entering, &reads});
      const auto outputs = model.head->forward(ends);
      const auto loss = stream->loss_sum(outputs, kExamples, 0) / stream->weight(kExamples, 0);
      const auto value = term.value({model, kExamples, ends, outputs, 0, &entering, &reads});
      EXPECT_EQ(value.requires_grad(), !joined);
      EXPECT_EQ(term.take_seconds() > 0, joined);
      (loss + value).backward();
      std::map<std::string, Tensor> gradients;
      for (auto& item : model.parameters_by_key()) {
        if (item.value().grad().defined()) gradients[item.key()] = item.value().grad().clone();
        item.value().mutable_grad() = Tensor();
      }
      return std::tuple{loss.item<double>(), value.item<double>(), gradients};
    };
    const auto [loss, value, gradients] = step(true);
    const auto [loss_apart, value_apart, gradients_apart] = step(false);
    EXPECT_NEAR(loss, loss_apart, 1e-5);
    EXPECT_NEAR(value, value_apart, 1e-5);
    ASSERT_EQ(gradients.size(), gradients_apart.size());
    double largest = 0;
    for (const auto& [key, gradient] : gradients_apart)
      largest = std::max(largest, gradient.abs().max().item<double>());
    for (const auto& [key, gradient] : gradients_apart)
      EXPECT_LE((gradients.at(key) - gradient).abs().max().item<double>(), 1e-5 * largest) << key;
    // It joined once, and no more.
    EXPECT_FALSE(dynamic_cast<models::LanguageHead&>(*model.head).beside);
  }
}

INSTANTIATE_TEST_SUITE_P(Kl, KlOf, testing::Values("llama_causal_lm", "gpt_bigcode_causal_lm", "starcoder2_causal_lm"),
                         [](const auto& info) { return info.param; });

TEST(Kl, KeepsOfTheSourceOnlyWhatLiesBehindTheBoundary) {
  const Texts texts;
  auto& model = texts.model;
  int loads = 0;
  std::weak_ptr<models::Model> last;
  const auto teacher = std::make_shared<Teacher>(
      model,
      [&] {
        ++loads;
        const auto source = Case("llama_causal_lm", 1, 0.0).model;
        last = source;
        return source;
      },
      [&](models::Model&, const std::vector<int64_t>&, uint64_t) -> train::Entering {
        throw std::logic_error("asked");
      });
  EXPECT_TRUE(last.expired());
  Kl term({.coefficient = 1}, teacher);
  const auto kept = [&] {
    int64_t values = 0;
    for (const auto& item : last.lock()->parameters_by_key()) values += item.value().numel();
    return values;
  };
  model.unfreeze_only({"head", "layer 2"});
  Asked(model, term, *texts.on(model), kExamples);
  const auto suffix = kept();
  Asked(model, term, *texts.on(model), kExamples);
  EXPECT_EQ(loads, 2) << "once to compare, once to keep";
  model.unfreeze_only({"head", "layer 1", "layer 2"});
  Asked(model, term, *texts.on(model), kExamples);
  EXPECT_EQ(loads, 3);
  EXPECT_GT(kept(), suffix);
  int64_t all = 0;
  for (const auto& item : model.parameters_by_key()) all += item.value().numel();
  EXPECT_LT(kept(), all);
}

TEST(Kl, AdaptersSwitchedOffAreTheSource) {
  const Texts texts;
  auto& model = texts.model;
  models::attach_lora(model, {.rank = 3, .alpha = 6, .dropout = 0.5}, 1);
  const auto teacher = texts.teacher(model);
  ASSERT_EQ(teacher->kind(), Teacher::Kind::adapters_off);
  model.unfreeze_only(model.all_groups());
  model.train();
  texts.move(model);
  Kl term({.coefficient = 1}, teacher);
  const auto stream = texts.on(model);
  const auto entering = stream->enter(kExamples, 0);
  const auto reads = stream->reads(kExamples, 0);
  const train::Ends none;
  const train::Outputs nothing;
  const auto answers = teacher->answers({model, kExamples, none, nothing, 0, &entering, &reads});
  const auto source = teacher->whole();
  const auto expected = teacher->answers(*source, kExamples);
  EXPECT_TRUE(same(answers.hidden, expected.hidden)) << "adapters, their dropout and the tuned norm are out";
  EXPECT_TRUE(same(answers.matrix, expected.matrix));
  EXPECT_TRUE(model.is_training());
  const Asked asked(model, term, *stream, kExamples);
  EXPECT_GT(asked.value.item<double>(), 0);
  EXPECT_GT(asked.largest(), 0);
}

TEST(Kl, AModelThatBeganElsewhereIsComparedWithAllOfTheSource) {
  const Texts texts("llama_causal_lm", 2);
  auto& model = texts.model;
  const auto teacher = texts.teacher(model);
  EXPECT_EQ(teacher->kind(), Teacher::Kind::whole);
  model.unfreeze_only({"head"});
  Kl term({.coefficient = 1}, teacher);
  const Asked asked(model, term, *texts.on(model), kExamples);
  const auto source = teacher->whole();
  const auto expected = teacher->answers(*source, kExamples);
  const auto ends = train::ends_behind(model, texts.on(model)->enter(kExamples, 0), std::nullopt);
  const auto mine = dynamic_cast<models::LanguageHead&>(*model.head).projection(ends);
  const auto p = mine.hidden.mm(mine.matrix.t()).log_softmax(1),
             q = expected.hidden.mm(expected.matrix.t()).log_softmax(1);
  EXPECT_NEAR(asked.value.item<double>(), ((p.exp() * (p - q)).sum() / p.size(0)).item<double>(), 1e-5);
}

struct Trained {
  Trained(const Texts& texts, const KlOptions& options, int64_t epochs, double rate = 0.01) {
    models::Model& model = texts.model;
    term = std::make_shared<Kl>(options, texts.teacher(model));
    stream = texts.on(model);
    train::PhasePlan plan{
        .stage = "finetune", .name = "x", .trainable = all_groups(model), .epochs = epochs, .metric = "perplexity"};
    for (const auto& group : plan.trainable) plan.learning_rates[group] = rate;
    std::vector<std::shared_ptr<train::LossTerm>> terms;
    if (options.coefficient > 0) terms.push_back(term);
    phase =
        std::make_unique<train::Phase>(model, plan, train::TrainOptions{.batch_size = 4}, *stream, *stream, 1, terms);
  }
  std::shared_ptr<Kl> term;
  std::shared_ptr<train::Stream> stream;
  std::unique_ptr<train::Phase> phase;
};

/// Mean divergence of the model from its source.
double divergence(const Texts& texts) {
  texts.model.unfreeze_only(texts.model.all_groups());
  texts.model.eval();
  Kl term({.coefficient = 1}, texts.teacher(*Case("llama_causal_lm", 1, 0.0).model));
  return Asked(texts.model, term, *texts.on(texts.model), {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}).value.item<double>();
}

TEST(Kl, HoldsTheSourceInAPhase) {
  const Texts texts_free, texts_held;
  Trained(texts_free, {}, 6).phase->run({});
  Trained held(texts_held, {.coefficient = 3}, 6);
  held.phase->run({});
  const auto free = divergence(texts_free), kept = divergence(texts_held);
  EXPECT_GT(free, 0.05);
  EXPECT_LT(kept, 0.5 * free);
  const auto& epoch = held.phase->state().history.back()["terms"]["kl"];
  EXPECT_EQ(epoch["coefficient"], 3);
  EXPECT_NEAR(epoch["value"].get<double>(), 3 * epoch["kl"].get<double>(), 0.2 * epoch["value"].get<double>());
}

TEST(Kl, TheCoefficientFindsItsTarget) {
  for (const double start : {0.2, 3.0}) {
    const Texts texts;
    Trained trained(texts, {.coefficient = start, .target = 0.05}, 200, 0.003);
    trained.phase->run({});
    double late = 0;
    const auto& history = trained.phase->state().history;
    for (size_t i = 120; i < 180; ++i) late += history[i]["terms"]["kl"]["kl"].get<double>() / 60;
    EXPECT_NEAR(late, 0.05, 0.015) << start;
    EXPECT_NE(trained.term->coefficient(), start);
    // A phase begins with the recipe's.
    trained.term->begin_phase();
    EXPECT_EQ(trained.term->coefficient(), start);
  }
}

TEST(Kl, StrengthenedItStaysSoInThePhasesToCome) {
  const Texts texts;
  Kl term({.coefficient = 0.5}, texts.teacher(texts.model));
  EXPECT_EQ(term.strengthen(4), 2);
  term.begin_phase();
  EXPECT_EQ(term.coefficient(), 2);
  Kl resumed({.coefficient = 0.5}, texts.teacher(texts.model));
  resumed.load_state(term.state());
  resumed.begin_phase();
  EXPECT_EQ(resumed.coefficient(), 2);
}

TEST(Kl, TheControllerIsThePapers) {
  const Texts texts;
  auto& model = texts.model;
  model.unfreeze_only(model.all_groups());
  Kl term({.coefficient = 1, .target = 1e-6}, texts.teacher(model));
  const train::WholeStep step{.model = model, .epoch = 0, .step = 0, .steps = 9, .examples = 5, .seed = 1};
  Asked(model, term, *texts.on(model), kExamples);  // no divergence: as far below as counts
  EXPECT_EQ(term.add_gradients(step), 0);
  EXPECT_NEAR(term.coefficient(), 1 - 0.1 * 0.2, 1e-12);
  texts.move(model);
  Asked(model, term, *texts.on(model), kExamples);  // far above
  term.add_gradients(step);
  EXPECT_NEAR(term.coefficient(), 0.98 * 1.02, 1e-12);
}

TEST(Kl, ResumedInMidPhaseItIsExact) {
  const KlOptions options{.coefficient = 0.3, .target = 0.02};
  const Texts whole_texts;
  Trained whole(whole_texts, options, 5);
  whole.phase->run({});
  for (const int stop_at : {2, 4, 8, 13}) {
    const Texts first_texts, second_texts;
    Trained first(first_texts, options, 5);
    int steps = 0;
    struct Stop {};
    EXPECT_THROW(first.phase->run({.step_done =
                                       [&](auto...) {
                                         if (++steps == stop_at) throw Stop{};
                                       }}),
                 Stop);
    auto state = first.phase->state_json();
    state["step"] = first.phase->state().step + 1;  // the hook runs before the step is counted
    Trained second(second_texts, options, 5);
    second.phase->resume(Json::parse(state.dump()), first.phase->state_tensors());
    second.phase->run({});
    EXPECT_EQ(second.term->state(), whole.term->state()) << stop_at;
    for (const auto& [key, value] : whole.phase->state_tensors())
      EXPECT_TRUE(same(second.phase->state_tensors().at(key), value)) << key;
  }
}

TEST(Kl, OnReplayedTextItIsAskedBesideTheLabelsOrInsteadOfThem) {
  const Texts texts;
  auto& model = texts.model;
  const auto teacher = texts.teacher(model);
  model.unfreeze_only(model.all_groups());
  texts.move(model);
  const auto stream = texts.on(model);
  const std::vector<int64_t> all{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
  const train::WholeStep step{.model = model, .epoch = 0, .step = 0, .steps = 9, .examples = 12, .seed = 1};
  const KlOptions options{.coefficient = 2, .target = 0.01};
  Kl alone(options, teacher);
  const Asked asked(model, alone, *stream, all);
  const double loss =
      stream->loss_sum(train::forward_behind(model, stream->enter(all, 0), std::nullopt), all, 0).item<double>() /
      stream->weight(all, 0);
  for (const bool labels : {false, true}) {
    Replay replay(*stream, all, 0.5, 3, nullptr, {.term = std::make_shared<Kl>(options, teacher), .labels = labels});
    EXPECT_EQ(replay.name(), labels ? "replay" : "kl on the source's text");
    const auto value = replay.add_gradients(step);  // as many as there are new ones: each once
    EXPECT_NEAR(value, asked.value.item<double>() + (labels ? loss : 0), 1e-4 * value);
    double largest = 0;
    for (auto& item : model.parameters_by_key()) {
      if (!labels) {
        EXPECT_LE((item.value().grad() - asked.gradients.at(item.key())).abs().max().item<double>(),
                  1e-4 * asked.largest());
      }
      largest = std::max(largest, item.value().grad().abs().max().item<double>());
      item.value().mutable_grad() = Tensor();
    }
    EXPECT_GT(largest, 0);
    EXPECT_NEAR(replay.facts()["coefficient"].get<double>(), 2 * 1.02, 1e-9) << "it adapts here too";
    Replay again(*stream, all, 0.5, 3, nullptr, {.term = std::make_shared<Kl>(options, teacher), .labels = labels});
    again.load_state(replay.state());
    EXPECT_EQ(again.state(), replay.state());
    again.begin_phase();
    EXPECT_EQ(again.facts()["coefficient"], 2);
  }
}

TEST(Kl, WhatIsStoredSaysHowFarItIsOff) {
  const Texts texts;
  const auto teacher = texts.teacher(texts.model);
  const auto source = teacher->whole();
  const auto direction = nn::KlDirection::tuned_source;
  const StoredAnswers all(*teacher, *texts.on(*source), 37, direction, 16),
      few(*teacher, *texts.on(*source), 2, direction, 16);
  EXPECT_GT(all.exact, 0);
  EXPECT_NEAR(all.stored, all.exact, 1e-5 * all.exact);
  EXPECT_LT(few.stored, 0.99 * few.exact);
  EXPECT_EQ(few.positions(), all.positions());
  EXPECT_EQ(few.bytes(), few.positions() * (2 * 8 + 4));
}

}  // namespace
}  // namespace graft::retain
