// What a store costs, when it is found again, when it is made anew, and what is left of one that was not finished.
#include "graft/features/store.h"

#include <gtest/gtest.h>

#include "graft/features/feed.h"
#include "graft/features/part.h"
#include "graft/io/safetensors.h"
#include "graft/models/loading.h"
#include "tests/fixtures.h"
#include "tests/io/fault.h"
#include "tests/models/cases.h"

namespace graft::features {
namespace {

using namespace tests;
using models::Reads;

std::vector<fs::path> files_in(const fs::path& folder) {
  std::vector<fs::path> files;
  if (fs::exists(folder))
    for (const auto& entry : fs::directory_iterator(folder)) files.push_back(entry.path());
  return files;
}

class StoreTest : public testing::Test {
 protected:
  void SetUp() override {
    at::set_num_threads(1);
    c.model->unfreeze_only({"head"});
  }
  CaptureResult captured(const std::vector<int64_t>& boundaries, const StoreOptions& options = {}) {
    return capture(*c.model, "text", boundaries, c.model->head->reads(), *c.inputs, folder.path, options);
  }
  torch::Tensor computed(int64_t boundary, const std::vector<int64_t>& examples) {
    const torch::NoGradGuard no_grad;
    c.model->eval();
    return c.model->forward("text", 0, boundary, c.inputs->batch("text", examples), c.model->head->reads())
        .hidden.values;
  }
  const std::vector<int64_t> all{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
  Case c{"bert_classification"};
  Scratch folder;
};

TEST_F(StoreTest, ABoundaryOverTheBudgetIsAbsentWithANoteAndRecomputed) {
  const auto small = store_bytes(*c.model, "text", 4, *c.inputs, {}),
             large = store_bytes(*c.model, "text", 2, *c.inputs, {});
  ASSERT_LT(small, large);
  const StoreOptions options{.budget_gb = (small + large - 1) / 1e9};
  const auto result = captured({2, 4}, options);
  EXPECT_FALSE(result.stores[0].has_value());
  ASSERT_TRUE(result.stores[1].has_value()) << "the budget goes to the boundary next to the head";
  ASSERT_EQ(result.notes.size(), 1u);
  EXPECT_TRUE(result.notes[0].starts_with("boundary 2 of text would take ")) << result.notes[0];
  EXPECT_EQ(files_in(folder.path).size(), 1u);

  Feed feed(*c.model, *c.inputs);
  feed.use("text", 4, *result.stores[1]);
  EXPECT_FALSE(feed.stored("text", 2));
  EXPECT_TRUE(same(feed.enter("text", 2, {3, 5}, c.model->head->reads()).hidden.values, computed(2, {3, 5})));

  const auto header = fs::file_size(result.stores[1]->path()) - small;
  EXPECT_TRUE(captured({2, 4}, {.budget_gb = (small + header + large) / 1e9}).notes.empty());
  EXPECT_EQ(files_in(folder.path).size(), 2u);
}

TEST_F(StoreTest, TheBytesForetoldAreThoseOfTheFile) {
  for (const auto& options : {StoreOptions{}, StoreOptions{.precision = "bfloat16"}, StoreOptions{.bf16 = true}}) {
    const Scratch own;
    capture(*c.model, "text", {2}, c.model->head->reads(), *c.inputs, own.path, options);
    const auto foretold = store_bytes(*c.model, "text", 2, *c.inputs, options),
               found = fs::file_size(files_in(own.path).at(0));
    EXPECT_LE(foretold, found);
    EXPECT_LE(found, foretold + 1200) << "a header";
  }
}

TEST_F(StoreTest, OfAKnownPartOnlyTheRestIsComputed) {
  const KnownPart known{{1, 4, 5, 11}, "of the part"};
  const PartOfInputs part(*c.inputs, known.examples, known.hash);
  const auto reads = c.model->head->reads();
  EXPECT_EQ(capture(*c.model, "text", {2, 4}, reads, part, folder.path, {}).computed, 4);
  const auto both = [&] {
    return capture_in_parts(*c.model, "text", {2, 4}, reads, *c.inputs, known, folder.path, {});
  };
  const auto result = both();
  EXPECT_EQ(result.computed, 8);
  EXPECT_GT(result.seconds, 0);
  ASSERT_TRUE(result.stores[0] && result.stores[1]);
  EXPECT_EQ(result.stores[0]->size(), 12);
  for (const auto boundary : {0, 1}) {
    const auto read = result.stores[boundary]->read({11, 0, 4, 3}, torch::kCPU);
    EXPECT_LE(relative_difference(read.hidden.values, computed(boundary == 0 ? 2 : 4, {11, 0, 4, 3})), 1e-5);
    for (int64_t i = 0; i < 12; ++i)
      EXPECT_EQ(result.stores[boundary]->length(i), boundary == 0 ? c.inputs->length(i) : 1) << i;
  }
  EXPECT_EQ(both().computed, 0);
  // Whether the part was there or not: the same values.
  const auto before = result.stores[0]->read(all, torch::kCPU).hidden.values.clone();
  io::remove_all(folder.path);
  const auto anew = both();
  EXPECT_EQ(anew.computed, 12);
  EXPECT_TRUE(same(anew.stores[0]->read(all, torch::kCPU).hidden.values, before));
  EXPECT_EQ(anew.stores[0]->paths().size(), 2u);
  Feed feed(*c.model, *c.inputs);
  feed.use("text", 4, *anew.stores[1]);
  EXPECT_EQ(feed.forget_beyond("text", 3), anew.stores[1]->paths());
  // The budget is that of both.
  const auto bytes = store_bytes(*c.model, "text", 2, part, {});
  io::remove_all(folder.path);
  const auto over =
      capture_in_parts(*c.model, "text", {2}, reads, *c.inputs, known, folder.path, {.budget_gb = (bytes + 10) / 1e9});
  EXPECT_FALSE(over.stores[0]);
  EXPECT_EQ(over.notes.size(), 1u);
}

TEST_F(StoreTest, HalvesKeepTheirPrecisionAndHalfTheBytes) {
  const auto exact = computed(2, all);
  const auto rounded = [&](const std::string& precision) {
    const auto result = captured({2}, {.precision = precision});
    const auto x = result.stores[0]->read(all, torch::kCPU).hidden.values;
    EXPECT_EQ(x.scalar_type(), torch::kFloat32);
    return x;
  };
  const auto bound = [&](const torch::Tensor& x, double relative, double absolute) {
    return ((x - exact).abs() - (relative * exact.abs() + absolute)).max().item<double>();
  };
  // Round to nearest: half a unit of the last of 8 or 11 significant bits. 1e-5 for other batch shapes of the capture.
  const auto bf16 = rounded("bfloat16"), fp16 = rounded("float16");
  EXPECT_LE(bound(bf16, 0x1p-8, 1e-5), 0);
  EXPECT_LE(bound(fp16, 0x1p-11, 1e-5), 0);
  EXPECT_GT(bound(bf16, 0x1p-10, 1e-5), 0) << "they are stored as halves indeed";
  EXPECT_GT(bound(fp16, 0x1p-13, 1e-5), 0);
  EXPECT_LE(relative_difference(rounded("float32"), exact), 1e-6);
}

TEST_F(StoreTest, AnUnknownPrecisionIsAUsageError) {
  EXPECT_EQ(message_of([&] { captured({2}, {.precision = "float8"}); }),
            "features.precision: expected float32, bfloat16 or float16, found float8.");
}

TEST_F(StoreTest, AFinishedStoreIsFoundAgainAndNotMadeAnew) {
  EXPECT_GT(captured({2, 3}).seconds, 0);
  auto files = files_in(folder.path);
  ASSERT_EQ(files.size(), 2u);
  std::map<fs::path, fs::file_time_type> times;
  for (const auto& file : files) times[file] = fs::last_write_time(file);
  int64_t calls = 0;
  const auto again = capture(*c.model, "text", {2, 3}, c.model->head->reads(), *c.inputs, folder.path, {},
                             [&](int64_t, int64_t) { ++calls; });
  EXPECT_EQ(calls, 0);
  EXPECT_EQ(again.seconds, 0);
  EXPECT_TRUE(again.stores[0] && again.stores[1]);
  for (const auto& file : files_in(folder.path)) EXPECT_EQ(fs::last_write_time(file), times.at(file));
}

TEST_F(StoreTest, AMeanIsOneRowAnExampleBesideItsBoundaryAndFoundAgain) {
  const auto mean_too = [&] {
    return capture(*c.model, "text", {4}, c.model->head->reads(), *c.inputs, folder.path, {}, {}, {3});
  };
  const auto first = mean_too();
  ASSERT_TRUE(first.stores[0] && first.means[0]);
  EXPECT_GT(first.seconds, 0);
  EXPECT_EQ(mean_too().seconds, 0);
  EXPECT_GT(captured({3}).seconds, 0) << "the boundary itself is another store";
  EXPECT_EQ(files_in(folder.path).size(), 3u);

  Feed computed_now(*c.model, *c.inputs), stored(*c.model, *c.inputs);
  stored.use_mean("text", 3, *first.means[0]);
  EXPECT_FALSE(stored.stored("text", 3)) << "a mean is not what enters the block";
  const std::vector<int64_t> examples{5, 0, 7};
  const auto mean = stored.mean("text", 3, examples);
  ASSERT_EQ(mean.size(0), 3);
  for (int64_t i = 0; i < 3; ++i)
    EXPECT_TRUE(mean[i].allclose(computed(3, {examples[i]}).mean(0), 1e-5, 1e-6)) << examples[i];
  EXPECT_TRUE(mean.allclose(computed_now.mean("text", 3, examples), 1e-5, 1e-6));
}

/// The key of a boundary under a change, which is undone.
class KeyTest : public testing::Test {
 protected:
  static std::string key(const Case& c, const std::string& chain, int64_t boundary, const StoreOptions& options = {}) {
    return PrefixHashes(*c.model, *c.inputs, options).key(chain, boundary, c.model->head->reads());
  }
  static void nudge(Case& c, const std::string& parameter) {
    const torch::NoGradGuard no_grad;
    c.model->parameters_by_key()[parameter].view(-1)[0] += 1e-3;
  }
};

TEST_F(KeyTest, ChangesWithThePrefixTheInputsAndThePlanAndWithNothingElse) {
  const Case plain("bert_classification");
  const auto before = key(plain, "text", 2);
  EXPECT_EQ(key(Case("bert_classification"), "text", 2), before);
  Case prefix("bert_classification"), suffix("bert_classification"), head("bert_classification");
  nudge(prefix, "bert.encoder.layer.0.output.dense.bias");
  EXPECT_NE(key(prefix, "text", 2), before);
  EXPECT_EQ(key(prefix, "text", 1), key(plain, "text", 1));
  nudge(suffix, "bert.encoder.layer.1.output.dense.bias");
  EXPECT_EQ(key(suffix, "text", 2), before);
  nudge(head, "classifier.weight");
  EXPECT_EQ(key(head, "text", 4), key(plain, "text", 4));
  EXPECT_NE(key(plain, "text", 3), before);
  EXPECT_NE(key(plain, "text", 2, {.precision = "bfloat16"}), before);
  EXPECT_NE(key(plain, "text", 2, {.capture_tokens = 5}), before);
  EXPECT_NE(key(plain, "text", 2, {.bf16 = true}), before);
  const PrefixHashes hashes(*plain.model, *plain.inputs, {});
  const std::string all_rows = hashes.key("text", 4, {});
  EXPECT_NE(all_rows, key(plain, "text", 4)) << "at the end only what the head reads is stored";
  EXPECT_EQ(hashes.key("text", 2, {}), before);
}

TEST_F(KeyTest, ChangesWithAnyInput) {
  Case c("table");
  const auto before = key(c, "text", 2);
  static_cast<ToyInputs&>(*c.inputs).change(11);
  EXPECT_NE(key(c, "text", 2), before);
  TextInputs inputs(*c.model, 8), types(*c.model, 8), cut(*c.model, 8);
  inputs.add(std::vector<int32_t>{1, 2, 3}, std::vector<int32_t>{0, 0, 0});
  types.add(std::vector<int32_t>{1, 2, 3}, std::vector<int32_t>{0, 0, 1});
  cut.add(std::vector<int32_t>{1, 2}, std::vector<int32_t>{0, 0});
  cut.add(std::vector<int32_t>{3}, std::vector<int32_t>{0});
  EXPECT_NE(inputs.hash(), types.hash());
  EXPECT_NE(inputs.hash(), cut.hash());
}

TEST_F(KeyTest, ChangesWithABuffer) {
  Case c("skips");
  const auto before = key(c, "text", 2), embeddings = key(c, "text", 1);
  c.model->buffers_by_key()["text.0.centre"].fill_(0.5);
  EXPECT_NE(key(c, "text", 2), before);
  EXPECT_EQ(key(c, "text", 1), embeddings);
}

TEST_F(KeyTest, ChangesWithATableThatThePrefixReads) {
  Case c("table");
  const auto embeddings = key(c, "text", 1), layer = key(c, "text", 3);
  nudge(c, "relative.rows");
  EXPECT_EQ(key(c, "text", 1), embeddings);
  EXPECT_NE(key(c, "text", 3), layer);
}

TEST_F(KeyTest, ChangesWithWhatAnotherChainOwnsAndThePrefixUses) {
  Case c("two_towers");
  const auto before = key(c, "text", 2), behind = key(c, "text", 3);
  nudge(c, "joint.weight");
  EXPECT_EQ(key(c, "text", 2), before);
  EXPECT_NE(key(c, "text", 3), behind);
}

TEST_F(KeyTest, ChangesWithTheChainThatThePrefixReads) {
  Case c("cross_attention");
  const auto embeddings = key(c, "text", 1), layer = key(c, "text", 2);
  nudge(c, "vision.1.out.bias");
  EXPECT_EQ(key(c, "text", 1), embeddings) << "the embeddings do not read the image";
  EXPECT_NE(key(c, "text", 2), layer) << "the first layer does";
}

TEST_F(StoreTest, AKillAtAnyOperationOfTheCaptureLeavesNoHalfStore) {
  const auto names = [&] {
    std::set<std::string> stores;
    for (const auto& file : files_in(folder.path))
      if (file.extension() == ".safetensors") stores.insert(file.filename());
    return stores;
  };
  const auto reference = [&] {
    const auto result = captured({1, 3}, {.capture_tokens = 30});
    const auto complete = names();
    EXPECT_EQ(complete.size(), 2u);
    return std::pair{complete, std::vector{result.stores[0]->read(all, torch::kCPU).hidden.values,
                                           result.stores[1]->read(all, torch::kCPU).hidden.values}};
  }();
  int64_t n = 0, killed = 0;
  for (bool survived = false; !survived; ++killed) {
    // Every operation at the start and the end, every seventh between: they are alike.
    n += n < 12 ? 1 : 7;
    ASSERT_LT(n, 400);
    io::remove_all(folder.path);
    survived = run_with_fault(fmt::format("kill:{}", n), [&] { captured({1, 3}, {.capture_tokens = 30}); });
    for (const auto& name : names()) {
      EXPECT_TRUE(reference.first.contains(name)) << name;
      EXPECT_EQ(Store(folder / name).size(), 12);
    }
    const auto result = captured({1, 3}, {.capture_tokens = 30});
    EXPECT_EQ(names(), reference.first);
    EXPECT_EQ(files_in(folder.path).size(), 2u) << "what the killed process left is swept, n = " << n;
    for (size_t i = 0; i < 2; ++i)
      EXPECT_TRUE(same(result.stores[i]->read(all, torch::kCPU).hidden.values, reference.second[i]));
  }
  EXPECT_GT(killed, 12);
}

TEST_F(StoreTest, AFullDiskIsASentenceAndLeavesNothing) {
  const Fault fault("enospc:1:.safetensors");
  const auto message = message_of([&] { captured({2}); });
  EXPECT_NE(message.find(folder.path.string()), std::string::npos) << message;
  EXPECT_TRUE(files_in(folder.path).empty());
}

TEST_F(StoreTest, WhatIsNoStoreIsASentenceThatNamesTheFile) {
  captured({2});
  const auto file = files_in(folder.path).at(0);
  const auto whole = read_text(file);
  const auto broken = [&](const std::string& bytes) {
    write_text(file, bytes);
    const auto message = message_of([&] { Store store(file); });
    EXPECT_NE(message.find(file.string()), std::string::npos) << message;
    return message;
  };
  broken(whole.substr(0, whole.size() - 1));
  broken(whole.substr(0, 40));
  broken("");
  // The first row numbers, 13 of them: 0, ..., the total; behind them 12 checksums.
  auto numbers = whole;
  numbers[numbers.size() - 8 * 24] = 100;  // the second starts behind the third
  EXPECT_TRUE(
      broken(numbers).ends_with("is no store of activations, or a damaged one. Remove it; graft makes it again."));
  const auto tensor = torch::zeros({3, 2});
  io::write_safetensors(file, {{"hidden", models::to_view(tensor)}});
  EXPECT_TRUE(message_of([&] { Store store(file); }).ends_with("Remove it; graft makes it again."));
  io::write_safetensors(
      file, {{"x", models::to_view(tensor)}, {"x.starts", models::to_view(torch::tensor({0, 1, 3}, torch::kInt64))}});
  EXPECT_TRUE(message_of([&] { Store store(file); }).ends_with("Remove it; graft makes it again."));
}

TEST_F(StoreTest, ADamagedStoreIsComputedAnewAndSaysSo) {
  captured({2});
  const auto file = files_in(folder.path).at(0);
  const auto whole = read_text(file);
  const auto damaged = [&](const std::string& bytes) {
    write_text(file, bytes);
    const auto result = captured({2});
    EXPECT_EQ(result.notes.size(), 1u);
    EXPECT_TRUE(result.notes.at(0).ends_with("it is computed anew")) << result.notes.at(0);
    EXPECT_EQ(read_text(file), whole);
    return result.notes.at(0);
  };
  // One bit in the rows of an example: the hidden states come before all else, behind the header.
  uint64_t header = 0;
  std::memcpy(&header, whole.data(), 8);
  auto bit = whole;
  bit[8 + header] ^= 1;
  EXPECT_NE(damaged(bit).find("hidden of example 0 is not what was written"), std::string::npos);
  auto check = whole;
  check.back() ^= 1;  // a checksum itself
  damaged(check);
  damaged(whole.substr(0, whole.size() / 2));
}

TEST_F(StoreTest, TheRoundingOfHalvesIsMeasured) {
  EXPECT_EQ(captured({2}).rounding, 0);
  const auto exact = captured({2}).stores[0]->read(all, torch::kCPU).hidden.values;
  for (const auto* precision : {"bfloat16", "float16"}) {
    const auto result = captured({2}, {.precision = precision});
    const auto stored = result.stores[0]->read(all, torch::kCPU).hidden.values;
    EXPECT_NEAR(result.rounding, relative_difference(stored, exact), 1e-6);
    EXPECT_GT(result.rounding, 0);
  }
}

TEST_F(KeyTest, ChangesWithTheConfiguration) {
  Case c("bert_classification");
  const auto before = key(c, "text", 2);
  c.model->configuration = R"({"num_attention_heads": 8})";
  EXPECT_NE(key(c, "text", 2), before) << "equal weights, other heads";
}

TEST_F(StoreTest, BatchesByLengthHoldEachExampleOnceWithinTheLimit) {
  const auto batches = batches_by_length(*c.inputs, 14);
  std::vector<int64_t> seen;
  int64_t longest = 0;
  for (const auto& batch : batches) {
    int64_t rows = 0;
    for (const auto i : batch) {
      EXPECT_GE(c.inputs->length(i), longest);
      longest = c.inputs->length(i);
      rows += longest;
      seen.push_back(i);
    }
    EXPECT_LE(rows, 14);
  }
  std::sort(seen.begin(), seen.end());
  EXPECT_EQ(seen, all);
  EXPECT_EQ(batches_by_length(*c.inputs, 1).size(), all.size()) << "one too long stands alone";
}

TEST_F(StoreTest, TheBudgetIsOfTheFolderHoweverManyPassesFillIt) {
  const auto small = store_bytes(*c.model, "text", 4, *c.inputs, {}),
             large = store_bytes(*c.model, "text", 2, *c.inputs, {});
  const StoreOptions options{.budget_gb = (small + large) / 1e9};  // without the first one's header
  ASSERT_TRUE(captured({4}, options).stores[0].has_value());
  const auto second = captured({2}, options);
  EXPECT_FALSE(second.stores[0].has_value());
  ASSERT_EQ(second.notes.size(), 1u);
  EXPECT_NE(second.notes[0].find("GB are taken; it is recomputed"), std::string::npos) << second.notes[0];
  EXPECT_TRUE(captured({4}, options).stores[0].has_value()) << "one that is there costs nothing more";
  EXPECT_TRUE(captured({4}, {.budget_gb = 0}).stores[0].has_value());
}

TEST_F(StoreTest, WhatLiesBehindTheBoundaryIsForgottenByName) {
  const auto result = captured({2, 3, 4});
  Feed feed(*c.model, *c.inputs);
  for (const auto at : {0, 1, 2}) feed.use("text", at + 2, *result.stores[at]);
  EXPECT_EQ(feed.forget_beyond("text", 3), std::vector<fs::path>{result.stores[2]->path()});
  EXPECT_FALSE(feed.stored("text", 4));
  EXPECT_TRUE(feed.stored("text", 3) && feed.stored("text", 2));
}

}  // namespace
}  // namespace graft::features
