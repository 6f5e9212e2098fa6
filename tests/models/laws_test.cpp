// Laws that hold for the five toys and for every row of models::architectures() with every head.
#include <gtest/gtest.h>

#include "graft/core/error.h"
#include "graft/io/safetensors.h"
#include "graft/models/loading.h"
#include "tests/fixtures.h"
#include "tests/models/cases.h"
#include "tests/train/streams.h"

namespace graft::models {
namespace {

using namespace tests;
using features::Feed;
using train::kEvaluation;

/// Activations of a chain at a boundary, computed in place from the inputs (and from the chains that it reads).
Activations in_place(Model& model, const features::Inputs& inputs, const std::string& chain, int64_t boundary,
                     const std::vector<int64_t>& examples, const Reads& reads) {
  auto x = inputs.batch(chain, examples);
  for (const auto& up : model.chain(chain).upstream)
    x.kept[up] = in_place(model, inputs, up, model.chain(up).blocks.size(), examples, {}).hidden;
  return model.forward(chain, 0, boundary, std::move(x), reads);
}

/// The head's outputs with nothing frozen, stored or left out.
Outputs outputs_in_place(Model& model, const features::Inputs& inputs, const std::vector<int64_t>& examples,
                         const Reads& reads) {
  std::map<std::string, Activations> ends;
  for (const auto& chain : model.chains)
    ends[chain.name] = in_place(model, inputs, chain.name, chain.blocks.size(), examples, reads);
  return model.head->forward(ends);
}

std::map<std::string, Tensor> gradients_of(const Model& model) {
  std::map<std::string, Tensor> gradients;
  for (const auto& item : model.parameters_by_key())
    if (item.value().grad().defined()) gradients[item.key()] = item.value().grad().clone();
  return gradients;
}

void forget_gradients(Model& model) {
  for (auto& item : model.parameters_by_key()) item.value().mutable_grad() = Tensor();
}

std::vector<int64_t> first_examples(int64_t count) {
  std::vector<int64_t> examples(count);
  for (int64_t i = 0; i < count; ++i) examples[i] = i;
  return examples;
}

train::PhasePlan plan_for(const Model& model, const std::set<std::string>& trainable, int64_t epochs) {
  train::PhasePlan plan{.stage = "finetune", .name = "law", .trainable = trainable, .epochs = epochs, .metric = "loss"};
  for (const auto& group : all_groups(model)) plan.learning_rates[group] = 0.01;
  return plan;
}

train::TrainOptions training() { return {.batch_size = 4, .micro_batch_tokens = 16}; }

std::string text_of(const std::set<std::string>& names) { return listed({names.begin(), names.end()}, 40); }

class Laws : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override { at::set_num_threads(1); }
  Case c{GetParam()};
  Model& model = *c.model;
  Feed feed{model, *c.inputs}, validation_feed{model, *c.validation_inputs};
};

TEST_P(Laws, GroupsCoverEachParameterOnce) {
  std::set<std::string> owned, in_blocks;
  std::multiset<std::string> owners;
  for (const auto& chain : model.chains)
    for (const auto& block : chain.blocks) owners.insert(block.groups.begin(), block.groups.end());
  for (const auto& group : model.groups)
    EXPECT_EQ(owners.count(group.name), 1u) << group.name << " belongs to one block";
  EXPECT_EQ(owners.size(), model.groups.size());
  std::set<std::string> of_head;
  for (const auto& item : model.head->named_parameters()) of_head.insert(item.key());
  std::set<std::string> with_parameters;
  for (const auto& item : model.parameters_by_key()) {
    int64_t fits = 0;
    for (const auto& group : model.groups)
      for (const auto& prefix : group.prefixes) fits += item.key().starts_with(prefix);
    EXPECT_EQ(fits + of_head.contains(item.key()), 1) << item.key();
    with_parameters.insert(model.group_of(item.key()));
  }
  EXPECT_EQ(with_parameters, all_groups(model));
}

// The boundary is derived from groups; autograd tells independently which block is the first whose output depends on one.
TEST_P(Laws, TheBoundaryIsTheFirstBlockThatATrainableParameterReaches) {
  const auto examples = first_examples(3);
  model.eval();
  for (const auto& trainable : trainable_sets(model)) {
    model.unfreeze_only(trainable);
    for (const auto& chain : model.chains) {
      auto x = c.inputs->batch(chain.name, examples);
      for (const auto& up : chain.upstream)
        x.kept[up] = in_place(model, *c.inputs, up, model.chain(up).blocks.size(), examples, {}).hidden;
      const auto blocks = static_cast<int64_t>(chain.blocks.size());
      int64_t first = blocks;
      for (int64_t i = 0; i < blocks && first == blocks; ++i) {
        x = model.forward(chain.name, i, i + 1, std::move(x), {});
        if (x.hidden.values.requires_grad()) first = i;
      }
      EXPECT_EQ(model.boundary(chain.name), first) << chain.name << ": " << text_of(trainable);
    }
  }
}

TEST_P(Laws, FrozenParametersGetNoGradientAndOthersTheWholeModels) {
  const auto examples = first_examples(6);
  const auto stream = c.stream(feed);
  model.eval();
  model.unfreeze_only(all_groups(model));
  stream.loss_sum(outputs_in_place(model, *c.inputs, examples, model.head->reads()), examples, 0).backward();
  const auto whole = gradients_of(model);
  EXPECT_EQ(whole.size(), model.parameters_by_key().size()) << "a parameter is used nowhere";
  double largest = 0;
  for (const auto& item : whole) largest = std::max(largest, item.second.abs().max().item<double>());
  for (const auto& trainable : trainable_sets(model)) {
    model.unfreeze_only(trainable);
    for (const auto& item : model.parameters_by_key())
      EXPECT_TRUE(trainable.contains(model.group_of(item.key())) || !item.value().grad().defined())
          << item.key() << " keeps a gradient of before";
    forget_gradients(model);
    stream.loss_sum(train::forward_behind(model, stream.enter(examples, 0), std::nullopt), examples, 0).backward();
    for (const auto& item : model.parameters_by_key()) {
      const bool learns = trainable.contains(model.group_of(item.key()));
      ASSERT_EQ(item.value().grad().defined(), learns) << item.key() << ": " << text_of(trainable);
      if (!learns) continue;
      const auto difference = (item.value().grad() - whole.at(item.key())).abs().max().item<double>();
      EXPECT_LE(difference, 5e-6 * largest) << item.key() << ": " << text_of(trainable);
    }
  }
}

TEST_P(Laws, FrozenBytesStayAndTrainableOnesMove) {
  for (const auto& trainable : trainable_sets(model)) {
    const auto before = tensors_of(model);
    const auto stream = c.stream(feed), validation = c.validation(validation_feed);
    train::Phase phase(model, plan_for(model, trainable, 1), training(), stream, validation, 3);
    model.train();
    phase.run({});
    std::set<std::string> moved;
    for (const auto& [key, value] : tensors_of(model)) {
      const auto group = model.group_of(key);
      if (!same(value, before.at(key))) moved.insert(group);
      EXPECT_TRUE(trainable.contains(group) || same(value, before.at(key))) << key << ": " << text_of(trainable);
    }
    EXPECT_EQ(moved, trainable);
  }
}

TEST_P(Laws, FrozenBlocksAreInEvaluationModeWhateverTrainIsCalledOn) {
  const auto examples = first_examples(6);
  for (const auto& trainable : trainable_sets(model)) {
    model.unfreeze_only(trainable);
    for (const auto& chain : model.chains) {
      const auto boundary = model.boundary(chain.name);
      if (boundary == 0) continue;
      const auto at_boundary = [&](uint64_t seed) {
        torch::manual_seed(seed);
        return feed.enter(chain.name, boundary, examples, model.head->reads()).hidden.values;
      };
      model.eval();
      const auto evaluated = at_boundary(1);
      model.train();
      EXPECT_TRUE(same(at_boundary(1), evaluated)) << chain.name << ": " << text_of(trainable);
      EXPECT_TRUE(same(at_boundary(2), evaluated)) << chain.name << ": " << text_of(trainable);
    }
  }
}

TEST_P(Laws, TrainDiffersFromEvalWhereThereIsDropout) {
  const auto examples = first_examples(6);
  model.unfreeze_only(all_groups(model));
  const auto logits = [&](uint64_t seed) {
    const torch::NoGradGuard no_grad;
    torch::manual_seed(seed);
    return outputs_in_place(model, *c.inputs, examples, model.head->reads()).at("logits");
  };
  model.eval();
  const auto evaluated = logits(1);
  EXPECT_TRUE(same(evaluated, logits(2)));
  model.train();
  const auto one = logits(1);
  EXPECT_FALSE(same(one, evaluated));
  EXPECT_FALSE(same(one, logits(2)));
  // A frozen head keeps its dropout off while the blocks train, and the reverse.
  model.unfreeze_only({model.groups.front().name});
  EXPECT_FALSE(model.head->is_training());
  model.unfreeze_only({"head"});
  EXPECT_TRUE(model.head->is_training());
}

TEST_P(Laws, TheLastBlockComputedWhereItIsReadGivesTheSameLogitsAndGradients) {
  const auto examples = first_examples(6);
  const auto reads = model.head->reads();
  model.eval();
  model.unfreeze_only(all_groups(model));
  const auto run = [&](bool everywhere) {
    forget_gradients(model);
    std::map<std::string, Activations> ends;
    for (const auto& chain : model.chains) {
      auto end = in_place(model, *c.inputs, chain.name, chain.blocks.size(), examples, everywhere ? Reads{} : reads);
      const bool is_read = chain.name != "vision";  // that one is read by the text, everywhere
      if (everywhere && is_read) {
        const auto index = resolve(reads, end.hidden.lengths, torch::kCPU);
        if (index.index.defined()) end.hidden = {end.hidden.values.index_select(0, index.index), index.lengths};
      }
      ends[chain.name] = end;
    }
    const auto logits = model.head->forward(ends).at("logits");
    c.stream(feed).loss_sum({{"logits", logits}}, examples, 0).backward();
    return std::pair{logits, gradients_of(model)};
  };
  const auto [everywhere, all] = run(true);
  const auto [needed, some] = run(false);
  EXPECT_LE(relative_difference(needed, everywhere), 5e-6);
  ASSERT_EQ(all.size(), some.size());
  double largest = 0;
  for (const auto& item : all) largest = std::max(largest, item.second.abs().max().item<double>());
  for (const auto& [key, gradient] : all)
    EXPECT_LE((some.at(key) - gradient).abs().max().item<double>(), 5e-6 * largest) << key;
}

// A chain's last block at listed rows: the rows of a masked language model.
TEST_P(Laws, ListedRowsEqualThoseOfAllRows) {
  const auto examples = first_examples(4);
  model.eval();
  for (const auto& chain : model.chains) {
    if (chain.name == "vision") continue;
    const auto blocks = static_cast<int64_t>(chain.blocks.size());
    const auto all = in_place(model, *c.inputs, chain.name, blocks, examples, {}).hidden;
    Reads listed{Reads::Where::listed};  // none of the second example, the last row of the others
    std::vector<int64_t> rows;
    int64_t start = 0;
    for (size_t i = 0; i < examples.size(); ++i) {
      start += all.lengths[i];
      listed.lengths.push_back(i != 1);
      if (i != 1) rows.push_back(start - 1);
    }
    listed.index = torch::tensor(rows, torch::kInt64);
    const auto some = in_place(model, *c.inputs, chain.name, blocks, examples, listed).hidden;
    EXPECT_EQ(some.lengths, listed.lengths);
    EXPECT_LE(relative_difference(some.values, all.values.index_select(0, listed.index)), 5e-6);
    some.values.sum().backward();
  }
}

TEST_P(Laws, NoListedRowsAtAllIsNoError) {
  const auto examples = first_examples(3);
  model.eval();
  const auto& chain = model.chains.back();
  const auto end = in_place(model, *c.inputs, chain.name, chain.blocks.size(), examples,
                            {Reads::Where::listed, torch::empty({0}, torch::kInt64), {0, 0, 0}});
  EXPECT_EQ(end.hidden.values.size(0), 0);
}

// ---- the store

features::StoreOptions store_options(bool bf16 = false) { return {.capture_tokens = 14, .bf16 = bf16}; }

/// Stores at all boundaries of all chains; the numbers of blocks are the ends.
void store_everything(Model& model, const features::Inputs& inputs, const std::filesystem::path& folder, Feed& feed,
                      bool bf16 = false) {
  for (const auto& chain : model.chains) {
    std::vector<int64_t> boundaries;
    for (size_t b = 1; b <= chain.blocks.size(); ++b) boundaries.push_back(static_cast<int64_t>(b));
    const auto captured =
        features::capture(model, chain.name, boundaries, model.head->reads(), inputs, folder, store_options(bf16));
    for (size_t i = 0; i < boundaries.size(); ++i) {
      ASSERT_TRUE(captured.stores[i].has_value());
      feed.use(chain.name, boundaries[i], *captured.stores[i]);
    }
  }
}

TEST_P(Laws, StoredActivationsEqualThoseComputedInPlace) {
  const Scratch scratch;
  model.unfreeze_only({"head"});
  model.train();
  store_everything(model, *c.inputs, scratch.path, feed);
  EXPECT_TRUE(model.is_training()) << "capture leaves the mode as it was";
  const torch::NoGradGuard no_grad;
  const auto reads = model.head->reads();
  for (const auto& chain : model.chains)
    for (int64_t boundary = 1; boundary <= static_cast<int64_t>(chain.blocks.size()); ++boundary) {
      const auto compare = [&](const std::vector<int64_t>& examples, bool bits) {
        model.eval();
        const auto x = in_place(model, *c.inputs, chain.name, boundary, examples, reads);
        model.train();
        const auto stored = feed.enter(chain.name, boundary, examples, reads);
        EXPECT_EQ(stored.hidden.lengths, x.hidden.lengths);
        EXPECT_TRUE(!bits || same(stored.hidden.values, x.hidden.values)) << chain.name << " " << boundary;
        // Decoders leave the residual stream without a norm, so their last bits are fewer.
        const double tolerance = c.architecture && c.architecture->language_task == "causal_lm" ? 3e-6 : 1e-6;
        EXPECT_LE(relative_difference(stored.hidden.values, x.hidden.values), tolerance)
            << chain.name << " " << boundary;
        std::vector<std::string> slots;
        for (const auto& [slot, rows] : stored.kept) {
          slots.push_back(slot);
          EXPECT_EQ(rows.lengths, x.kept.at(slot).lengths);
          EXPECT_TRUE(!bits || same(rows.values, x.kept.at(slot).values)) << slot;
          EXPECT_LE(relative_difference(rows.values, x.kept.at(slot).values), 1e-6) << slot;
        }
        EXPECT_EQ(slots, model.slots_across(chain.name, boundary));
      };
      for (const auto& examples : features::batches_by_length(*c.inputs, store_options().capture_tokens))
        compare(examples, true);
      compare({7, 2, 9}, false);
      for (int64_t i = 0; i < 3; ++i) {
        compare({i}, false);
        EXPECT_EQ(feed.rows(chain.name, boundary, i),
                  feed.enter(chain.name, boundary, {i}, reads).hidden.values.size(0));
      }
    }
}

TEST_P(Laws, UnderAutocastStoredActivationsEqualThoseComputedInPlace) {
  const Scratch scratch;
  model.unfreeze_only({"head"});
  store_everything(model, *c.inputs, scratch.path, feed, /*bf16=*/true);
  EXPECT_FALSE(nn::under_autocast(torch::kCPU)) << "capture leaves the precision as it was";
  model.eval();
  const torch::NoGradGuard no_grad;
  const auto reads = model.head->reads();
  for (const auto& chain : model.chains)
    for (int64_t boundary = 1; boundary <= static_cast<int64_t>(chain.blocks.size()); ++boundary)
      for (const auto& examples : features::batches_by_length(*c.inputs, store_options().capture_tokens)) {
        const auto widened = feed.enter(chain.name, boundary, examples, reads).hidden.values;
        const nn::Autocast autocast(torch::kCPU, true);
        const auto x = in_place(model, *c.inputs, chain.name, boundary, examples, reads);
        const auto stored = feed.enter(chain.name, boundary, examples, reads);
        EXPECT_TRUE(same(stored.hidden.values, x.hidden.values)) << chain.name << " " << boundary;
        EXPECT_TRUE(same(widened, x.hidden.values.to(torch::kFloat32))) << chain.name << " " << boundary;
        for (const auto& [slot, rows] : stored.kept) EXPECT_TRUE(same(rows.values, x.kept.at(slot).values)) << slot;
      }
}

TEST_P(Laws, MeansOfWhatEntersABlockAreThoseComputedInPlace) {
  const Scratch scratch;
  model.unfreeze_only({"head"});
  const torch::NoGradGuard no_grad;
  for (const auto& chain : model.chains)
    for (int64_t boundary = 1; boundary < static_cast<int64_t>(chain.blocks.size()); ++boundary) {
      const auto captured = features::capture(model, chain.name, {}, model.head->reads(), *c.inputs, scratch.path,
                                              store_options(), {}, {boundary});
      ASSERT_TRUE(captured.means.front().has_value());
      feed.use_mean(chain.name, boundary, *captured.means.front());
      const auto means = feed.mean(chain.name, boundary, {4, 1});
      model.eval();
      for (const int64_t i : {0, 1}) {
        const auto x =
            in_place(model, *c.inputs, chain.name, boundary, {i == 0 ? 4 : 1}, model.head->reads()).hidden.values;
        const auto expected = x.dim() > 2 ? x.mean({2, 3})[0] : x.mean(0);
        EXPECT_LE(relative_difference(means[i], expected), 3e-6) << chain.name << " " << boundary;
      }
    }
}

/// A stream whose boundaries are recomputed in the batches of the capture pass.
struct Recomputed final : train::Stream {
  Recomputed(const Case& c, const train::Supervised& rest) : c(c), rest(rest) {}
  int64_t size() const override { return rest.size(); }
  int64_t rows(int64_t example) const override { return rest.rows(example); }
  std::map<std::string, Activations> enter(const std::vector<int64_t>& examples, uint64_t) const override {
    const torch::NoGradGuard no_grad;
    std::map<std::string, Activations> entering;
    for (const auto& chain : c.model->chains) {
      const auto boundary = c.model->boundary(chain.name);
      if (boundary == 0) {
        entering[chain.name] = c.inputs->batch(chain.name, examples);
        continue;
      }
      Activations all;
      std::vector<Activations> parts;
      std::vector<int64_t> place(size());
      int64_t at = 0;
      for (const auto& batch : features::batches_by_length(*c.inputs, store_options().capture_tokens)) {
        parts.push_back(in_place(*c.model, *c.inputs, chain.name, boundary, batch, c.model->head->reads()));
        for (const auto example : batch) place[example] = at++;
      }
      const auto joined = [&](auto&& rows_of) {
        Rows rows;
        std::vector<Tensor> values;
        for (const auto& part : parts) {
          const Rows& r = rows_of(part);
          values.push_back(r.values);
          rows.lengths.insert(rows.lengths.end(), r.lengths.begin(), r.lengths.end());
        }
        rows.values = torch::cat(values);
        std::vector<int64_t> order;
        for (const auto example : examples) order.push_back(place[example]);
        return select(rows, order);
      };
      all.hidden = joined([](const Activations& x) -> const Rows& { return x.hidden; });
      for (const auto& slot : c.model->slots_across(chain.name, boundary))
        all.kept[slot] = joined([&](const Activations& x) -> const Rows& { return x.kept.at(slot); });
      entering[chain.name] = all;
    }
    return entering;
  }
  double weight(const std::vector<int64_t>& examples, uint64_t epoch) const override {
    return rest.weight(examples, epoch);
  }
  Tensor loss_sum(const Outputs& outputs, const std::vector<int64_t>& examples, uint64_t epoch) const override {
    return rest.loss_sum(outputs, examples, epoch);
  }
  train::Predictions predictions() const override { return rest.predictions(); }
  void collect(const Outputs& outputs, const std::vector<int64_t>& examples, train::Predictions& into) const override {
    rest.collect(outputs, examples, into);
  }
  const Case& c;
  const train::Supervised& rest;
};

TEST_P(Laws, TrainingThroughTheStoreEndsWithTheBytesOfRecomputing) {
  std::vector<std::set<std::string>> sets{
      {"head"}, {"head", model.groups.back().name}, {"head", model.groups[model.groups.size() / 2].name}};
  const auto expect_equal = [&](const std::set<std::string>& trainable, bool bf16) {
    const auto trained = [&](bool stored) {
      const Scratch scratch;
      Case fresh(GetParam());
      auto options = training();
      if (bf16) options.precision = "bfloat16";
      Feed feed(*fresh.model, *fresh.inputs), validation_feed(*fresh.model, *fresh.validation_inputs);
      const auto stream = fresh.stream(feed), validation = fresh.validation(validation_feed);
      const Recomputed recomputed(fresh, stream);
      // The stores tell rows() too, and with it the order of an epoch: both runs have them.
      store_everything(*fresh.model, *fresh.inputs, scratch.path, feed, bf16);
      train::Phase phase(*fresh.model, plan_for(*fresh.model, trainable, 2), options,
                         stored ? static_cast<const train::Stream&>(stream) : recomputed, validation, 3);
      phase.run({});
      return tensors_of(*fresh.model);
    };
    const auto through_store = trained(true), recomputed = trained(false);
    for (const auto& [key, value] : through_store)
      EXPECT_TRUE(same(value, recomputed.at(key))) << key << ": " << text_of(trainable) << (bf16 ? ", bfloat16" : "");
  };
  for (const auto& trainable : sets) expect_equal(trainable, false);
  expect_equal(sets[1], true);
}

// ---- save, resume

TEST_P(Laws, SaveLoadSaveIsByteEqual) {
  const Scratch scratch;
  const Architecture toy{.model_type = "toy", .prefix = "toy"};
  const auto& architecture = c.architecture ? *c.architecture : toy;
  io::write_safetensors(scratch / "a.safetensors", to_views(tensors_of(model)));
  Case other(GetParam(), 2);
  for (const auto& [key, value] : tensors_of(*other.model))
    EXPECT_TRUE(value.dim() < 2 || !same(value, tensors_of(model).at(key))) << key;
  const auto report =
      load_weights(*other.model, architecture, io::read_safetensors(scratch / "a.safetensors").tensors, "a", false);
  EXPECT_TRUE(report.fresh.empty());
  EXPECT_TRUE(report.dropped.empty());
  EXPECT_EQ(report.key_in_file.size(), tensors_of(model).size());
  io::write_safetensors(scratch / "b.safetensors", to_views(tensors_of(*other.model)));
  EXPECT_EQ(read_text(scratch / "a.safetensors"), read_text(scratch / "b.safetensors"));
}

TEST_P(Laws, AResumedPhaseEqualsTheUnbrokenOne) {
  for (const std::set<std::string>& trainable :
       {std::set<std::string>{"head"}, {"head", model.groups.back().name}, all_groups(model)}) {
    const auto run = [&](int64_t stop_after) {
      Json state;
      std::map<std::string, Tensor> tensors;
      if (stop_after >= 0) {
        Case first(GetParam());
        const Feed feed(*first.model, *first.inputs), validation_feed(*first.model, *first.validation_inputs);
        const auto stream = first.stream(feed), validation = first.validation(validation_feed);
        const Stopping stopping(stream, stop_after);
        train::Phase phase(*first.model, plan_for(*first.model, trainable, 3), training(), stopping, validation, 3);
        EXPECT_THROW(phase.run({}), Interrupted);
        state = Json::parse(phase.state_json().dump());  // as a checkpoint keeps it
        for (const auto& [key, value] : phase.state_tensors()) tensors[key] = value.clone();
      }
      Case c(GetParam());
      const Feed feed(*c.model, *c.inputs), validation_feed(*c.model, *c.validation_inputs);
      const auto stream = c.stream(feed), validation = c.validation(validation_feed);
      train::Phase phase(*c.model, plan_for(*c.model, trainable, 3), training(), stream, validation, 3);
      torch::manual_seed(99);  // the generator's state is no part of a run
      if (stop_after >= 0) phase.resume(state, tensors);
      phase.run({});
      auto all = tensors_of(*c.model);
      for (const auto& [key, value] : phase.state_tensors()) all[key] = value.clone();
      auto whole = phase.state_json();
      whole.erase("step_seconds");  // times apart
      for (auto& row : whole["history"]) row.erase("seconds");
      return std::pair{whole, all};
    };
    const auto [unbroken, tensors] = run(-1);
    for (const int64_t stop_after :
         {0, 2, 3, 7}) {  // 3 steps an epoch: at once, within the first, between two, in the last
      const auto [resumed, others] = run(stop_after);
      EXPECT_EQ(resumed, unbroken) << stop_after << ": " << text_of(trainable);
      ASSERT_EQ(others.size(), tensors.size());
      for (const auto& [key, value] : tensors)
        EXPECT_TRUE(same(others.at(key), value)) << key << " after " << stop_after << ": " << text_of(trainable);
    }
  }
}

TEST_P(Laws, AStateThatDoesNotFitIsASentence) {
  const auto stream = c.stream(feed), validation = c.validation(validation_feed);
  train::Phase head(model, plan_for(model, {"head"}, 1), training(), stream, validation, 3);
  const auto state = head.state_json();
  const auto tensors = head.state_tensors();
  train::Phase other(model, plan_for(model, {model.groups.back().name}, 1), training(), stream, validation, 3);
  const auto message = message_of([&] { other.resume(state, tensors); });
  EXPECT_TRUE(message.starts_with("the checkpoint does not fit the run: ")) << message;
}

INSTANTIATE_TEST_SUITE_P(All, Laws, testing::ValuesIn(case_names()),
                         [](const auto& info) { return test_name(info.param); });

}  // namespace
}  // namespace graft::models
