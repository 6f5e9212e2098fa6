// What packing does to documents, and that the loss knows nothing of it.
#include "graft/adapt/causal_lm.h"

#include <gtest/gtest.h>
#include <torch/nn/functional.h>

#include "graft/core/random.h"
#include "graft/models/architectures.h"
#include "tests/fixtures.h"
#include "tests/models/cases.h"

namespace graft::adapt {
namespace {

using namespace tests;
namespace F = torch::nn::functional;

using Ids = std::vector<int32_t>;

std::vector<std::vector<Ids>> pieces_of(const PackedSequences& packed) {
  std::vector<std::vector<Ids>> all;
  for (int64_t i = 0; i < packed.size(); ++i) {
    all.emplace_back();
    for (const auto& piece : packed.pieces(i)) all.back().emplace_back(piece.ids.begin(), piece.ids.end());
  }
  return all;
}

TEST(CausalPacking, FillsSequencesAndPredictsEachTokenOnce) {
  PackedSequences packed(6);
  packed.add(Ids{1, 2, 3, 4});
  packed.add(Ids{11, 12, 13, 14, 15, 16, 17, 18, 19});
  packed.add(Ids{21});
  packed.add(Ids{31, 32});
  using Sequences = std::vector<std::vector<Ids>>;
  EXPECT_EQ(pieces_of(packed),
            (Sequences{{{1, 2, 3, 4}, {11, 12}}, {{12, 13, 14, 15, 16, 17}}, {{17, 18, 19}, {31, 32}}}));
  EXPECT_EQ(packed.predicted(0), 4);
  EXPECT_EQ(packed.predicted(1), 5);
  EXPECT_EQ(packed.predicted(2), 3);
  EXPECT_EQ(packed.tokens(2), 5);
}

TEST(CausalPacking, AWholeDocumentThatFitsIsNotParted) {
  PackedSequences packed(6);
  packed.add(Ids{1, 2, 3, 4});
  packed.add(Ids{11, 12, 13}, {}, true);
  packed.add(Ids{21, 22, 23, 24, 25, 26, 27}, {}, true);
  using Sequences = std::vector<std::vector<Ids>>;
  EXPECT_EQ(pieces_of(packed), (Sequences{{{1, 2, 3, 4}}, {{11, 12, 13}, {21, 22, 23}}, {{23, 24, 25, 26, 27}}}));
}

TEST(CausalPacking, DocumentsTakenApartKeepTheirTokensAndFitASequence) {
  const auto tokenizer = data::Tokenizer::load(fixture("parity/tokenizers/bytebpe-starcoder"));
  const data::FillInTheMiddle middle(tokenizer, {.fill_in_the_middle = 0.5}, 1);
  std::string text;
  for (int i = 0; i < 30; ++i) text += "x" + std::to_string(i) + " = y\n";
  const std::vector<std::string_view> documents(20, text);
  PackedSequences packed(64), plain(64);
  pack_documents(tokenizer, documents, packed, &middle);
  pack_documents(tokenizer, documents, plain);
  const auto marker = *tokenizer.id_of("<fim_middle>");
  int64_t apart = 0, tokens = 0, plain_tokens = 0;
  for (int64_t i = 0; i < packed.size(); ++i) {
    tokens += packed.predicted(i);
    for (const auto& piece : packed.pieces(i)) {
      const auto count = std::count(piece.ids.begin(), piece.ids.end(), marker);
      EXPECT_LE(count, 1);
      apart += count;
      if (count == 1) {
        EXPECT_EQ(piece.ids.front(), *tokenizer.id_of("<fim_prefix>")) << "whole in one sequence";
      }
    }
  }
  for (int64_t i = 0; i < plain.size(); ++i) plain_tokens += plain.predicted(i);
  EXPECT_GT(apart, 20);
  EXPECT_GT(tokens, plain_tokens);
}

TEST(CausalPacking, OfADocumentInPiecesOnlyTheFirstTokenIsNotPredicted) {
  Random random(2);
  for (const int64_t max_length : {2, 3, 7, 64}) {
    PackedSequences packed(max_length);
    int64_t expected = 0;
    for (int i = 0; i < 50; ++i) {
      Ids ids(1 + random.below(20), 5);
      expected += static_cast<int64_t>(ids.size()) - 1;
      packed.add(ids);
    }
    int64_t predicted = 0;
    for (int64_t i = 0; i < packed.size(); ++i) {
      EXPECT_LE(packed.tokens(i), max_length);
      predicted += packed.predicted(i);
    }
    EXPECT_EQ(predicted, expected) << max_length;
  }
}

TEST(CausalPacking, DocumentsEndWithTheEndToken) {
  const auto tokenizer = data::Tokenizer::load(fixture("parity/tokenizers/bytebpe-starcoder"));
  PackedSequences packed(64);
  pack_documents(tokenizer, {"a b", "", "def f(x): return x"}, packed);
  const auto end = *tokenizer.special_id("eos_token");
  ASSERT_EQ(packed.size(), 1);
  const auto pieces = packed.pieces(0);
  ASSERT_EQ(pieces.size(), 2u) << "an empty document has nothing to predict";
  for (const auto& piece : pieces) EXPECT_EQ(piece.ids.back(), end);
  const Scratch folder;
  write_text(folder / "vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\nthe\n");
  const auto message = message_of([&] { pack_documents(data::Tokenizer::load(folder.path), {"the"}, packed); });
  EXPECT_TRUE(message.starts_with("the tokenizer has no end token")) << message;
}

// ---- the loss

struct CausalLoss : testing::TestWithParam<std::string> {
  void SetUp() override {
    at::set_num_threads(1);
    Json config{{"model_type", GetParam()},
                {"vocab_size", 37},
                {"hidden_size", 16},
                {"num_hidden_layers", 2},
                {"num_attention_heads", 4},
                {"num_key_value_heads", 2},
                {"intermediate_size", 24},
                {"sliding_window", 4},
                {"n_embd", 16},
                {"n_layer", 2},
                {"n_head", 4}};
    torch::manual_seed(1);
    model = models::find_architecture(config).create(config, {"causal_lm"});
    {
      const torch::NoGradGuard no_grad;
      for (auto& item : model->parameters_by_key())
        if (item.value().dim() > 1) item.value().normal_(0, 0.25);
    }
    model->unfreeze_only(all_groups(*model));
    model->eval();
    Random random(4);
    for (int i = 0; i < 24; ++i) {
      Ids ids(2 + random.below(12));
      for (auto& id : ids) id = static_cast<int32_t>(random.below(37));
      documents.push_back(ids);
    }
  }

  torch::Tensor loss(const train::Stream& stream, const std::vector<int64_t>& examples) {
    return stream.loss_sum(train::forward_behind(*model, stream.enter(examples, 0), stream.reads(examples, 0)),
                           examples, 0);
  }
  std::map<std::string, torch::Tensor> gradients() {
    std::map<std::string, torch::Tensor> all;
    for (auto& item : model->parameters_by_key()) {
      all[item.key()] = item.value().grad().clone();
      item.value().mutable_grad() = torch::Tensor();
    }
    return all;
  }
  void expect_near(const std::map<std::string, torch::Tensor>& a, const std::map<std::string, torch::Tensor>& b,
                   double tolerance) {
    double largest = 0;
    for (const auto& item : b) largest = std::max(largest, item.second.abs().max().item<double>());
    for (const auto& [key, gradient] : b)
      EXPECT_LE((a.at(key) - gradient).abs().max().item<double>(), tolerance * largest) << key;
  }

  std::shared_ptr<models::Model> model;
  std::vector<Ids> documents;
};

TEST_P(CausalLoss, PackedItIsTheSumOfTheSeparateLosses) {
  PackedSequences packed(40);
  for (const auto& ids : documents) packed.add(ids);
  // No document is cut at 40: pieces cut in two would lose what stands before the cut.
  PackedSequences roomy(1000);
  for (const auto& ids : documents) roomy.add(ids);
  ASSERT_EQ(roomy.size(), 1);
  const CausalLm stream(*model, roomy);
  const auto together = loss(stream, {0});
  together.backward();
  const auto packed_gradients = gradients();

  // Each document alone, by the logits of all its positions: as transformers computes it.
  double separate = 0, count = 0;
  for (const auto& ids : documents) {
    auto x = features::text_batch(*model, {ids}, {ids});
    std::map<std::string, models::Activations> ends;
    ends["text"] = model->forward("text", 0, 3, std::move(x), {});
    const auto logits = model->head->forward(ends).at("logits");
    const auto n = static_cast<int64_t>(ids.size());
    const auto labels = torch::tensor(std::vector<int64_t>(ids.begin() + 1, ids.end()), torch::kInt64);
    const auto one =
        F::cross_entropy(logits.narrow(0, 0, n - 1), labels, F::CrossEntropyFuncOptions().reduction(torch::kSum));
    one.backward();
    separate += one.item<double>();
    count += static_cast<double>(n) - 1;
  }
  EXPECT_NEAR(together.item<double>(), separate, 1e-5 * separate);
  EXPECT_EQ(stream.weight({0}, 0), count);
  expect_near(packed_gradients, gradients(), 1e-5);
}

TEST_P(CausalLoss, NothingLeaksBetweenDocuments) {
  PackedSequences one(1000), other(1000);
  auto changed = documents;
  for (auto& id : changed.front()) id = (id + 1) % 37;
  for (const auto& ids : documents) one.add(ids);
  for (const auto& ids : changed) other.add(ids);
  const auto hidden = [&](const PackedSequences& packed) {
    const CausalLm stream(*model, packed);
    return model->forward("text", 0, 3, stream.enter({0}, 0).at("text"), {}).hidden.values;
  };
  const auto first = static_cast<int64_t>(documents.front().size());
  const auto a = hidden(one), b = hidden(other);
  EXPECT_FALSE(same(a.narrow(0, 0, first), b.narrow(0, 0, first)));
  EXPECT_TRUE(same(a.narrow(0, first, a.size(0) - first), b.narrow(0, first, b.size(0) - first)));
}

TEST_P(CausalLoss, EightStepsOfOneHaveTheGradientOfOneOfEight) {
  PackedSequences packed(20);
  for (const auto& ids : documents) packed.add(ids);
  ASSERT_GE(packed.size(), 8);
  const CausalLm stream(*model, packed);
  const std::vector<int64_t> eight{0, 1, 2, 3, 4, 5, 6, 7};
  const auto total = stream.weight(eight, 0);
  (loss(stream, eight) / total).backward();
  const auto whole = gradients();
  for (const auto i : eight) (loss(stream, {i}) / total).backward();
  expect_near(gradients(), whole, 1e-6);
}

TEST_P(CausalLoss, CountsOnlyWhatIsLearned) {
  PackedSequences all(50), some(50);
  const Ids question{3, 4, 5}, answer{6, 7, 8, 9};
  Ids both = question;
  both.insert(both.end(), answer.begin(), answer.end());
  some.add(both, std::vector<char>{0, 0, 0, 1, 1, 1, 1});
  EXPECT_EQ(some.predicted(0), 4);
  const CausalLm stream(*model, some);
  const torch::NoGradGuard no_grad;
  auto x = features::text_batch(*model, {both}, {both});
  std::map<std::string, models::Activations> ends;
  ends["text"] = model->forward("text", 0, 3, std::move(x), {});
  const auto logits = model->head->forward(ends).at("logits").narrow(0, 2, 4);
  const auto expected = F::cross_entropy(logits, torch::tensor({6, 7, 8, 9}, torch::kInt64),
                                         F::CrossEntropyFuncOptions().reduction(torch::kSum))
                            .item<double>();
  EXPECT_NEAR(loss(stream, {0}).item<double>(), expected, 1e-5 * expected);
}

// The head's own function of the loss, with what else saves memory around it.
TEST_P(CausalLoss, CheckpointedItHasTheSameGradients) {
  PackedSequences packed(20);
  for (const auto& ids : documents) packed.add(ids);
  const CausalLm stream(*model, packed);
  const std::vector<int64_t> some{0, 1, 2};
  loss(stream, some).backward();
  const auto plain = gradients();
  const auto checkpointed =
      stream.loss_sum(train::forward_behind(*model, stream.enter(some, 0), stream.reads(some, 0), true), some, 0);
  checkpointed.backward();
  expect_near(gradients(), plain, 1e-6);
}

TEST_P(CausalLoss, UnderAutocastItIsNearAndGradientsStayInFloat32) {
  PackedSequences packed(20);
  for (const auto& ids : documents) packed.add(ids);
  const CausalLm stream(*model, packed);
  const std::vector<int64_t> some{0, 1, 2};
  const auto exact = loss(stream, some);
  exact.backward();
  const auto plain = gradients();
  torch::Tensor rounded;
  {
    const train::Autocast autocast(torch::kCPU, true);
    rounded = loss(stream, some);
  }
  rounded.backward();
  EXPECT_EQ(rounded.scalar_type(), torch::kFloat32);
  EXPECT_NE(rounded.item<double>(), exact.item<double>());
  EXPECT_NEAR(rounded.item<double>(), exact.item<double>(), 0.02 * exact.item<double>());
  for (const auto& [key, gradient] : gradients()) EXPECT_EQ(gradient.scalar_type(), torch::kFloat32) << key;
  loss(stream, some).backward();
  expect_near(gradients(), plain, 0);  // nothing of the rounded pass stays behind
  {
    const train::Autocast autocast(torch::kCPU, true);
    rounded = loss(stream, some);
  }
  rounded.backward();
  expect_near(gradients(), plain, 0.05);
}

INSTANTIATE_TEST_SUITE_P(All, CausalLoss, testing::Values("llama", "gpt_bigcode", "starcoder2"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace graft::adapt
