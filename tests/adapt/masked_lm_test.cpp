// Which tokens are masked, with what, and what the loss of them is; how documents are packed.
#include "graft/adapt/masked_lm.h"

#include <gtest/gtest.h>
#include <torch/nn/functional.h>

#include "graft/core/random.h"
#include "graft/models/architectures.h"
#include "tests/fixtures.h"
#include "tests/models/cases.h"

namespace graft::adapt {
namespace {

using namespace tests;

data::Tokenizer word_pieces() { return data::Tokenizer::load(fixture("parity/tokenizers/wordpiece-lower")); }

AdaptOptions options(double probability = 0.15, bool whole_words = false) {
  AdaptOptions o;
  o.mask_probability = probability;
  o.whole_words = whole_words;
  return o;
}

/// [CLS], `count` tokens that are not special, [SEP].
std::vector<int32_t> sequence(const data::Tokenizer& tokenizer, const MaskRules& rules, int64_t count, uint64_t seed) {
  Random random(seed);
  std::vector<int32_t> ids{*tokenizer.special_id("cls_token")};
  while (static_cast<int64_t>(ids.size()) <= count) {
    const auto id = static_cast<int32_t>(random.below(rules.vocab_size));
    if (!rules.special[id]) ids.push_back(id);
  }
  ids.push_back(*tokenizer.special_id("sep_token"));
  return ids;
}

struct Masking : testing::Test {
  void SetUp() override { at::set_num_threads(1); }
  data::Tokenizer tokenizer = word_pieces();
  int64_t vocabulary = tokenizer.vocab_size();
};

TEST_F(Masking, FifteenInHundredAreChosenAndOfThoseEightyTenTen) {
  const MaskRules rules(tokenizer, vocabulary, options());
  constexpr double n = 200000;
  const auto ids = sequence(tokenizer, rules, static_cast<int64_t>(n), 1);
  const auto masked = mask(ids, rules, 7);
  const auto chosen = static_cast<double>(masked.positions.size());
  double as_mask = 0, kept = 0, random = 0;
  std::set<int32_t> drawn;
  for (size_t i = 0; i < masked.positions.size(); ++i) {
    const auto now = masked.ids[masked.positions[i]];
    EXPECT_EQ(masked.labels[i], ids[masked.positions[i]]);
    if (now == rules.mask_id) ++as_mask;
    else if (now == masked.labels[i]) ++kept;
    else ++random, drawn.insert(now);
  }
  // Five standard deviations of a binomial.
  const auto near = [](double count, double of, double share) {
    return std::abs(count / of - share) < 5 * std::sqrt(share * (1 - share) / of);
  };
  EXPECT_TRUE(near(chosen, n, 0.15)) << chosen / n;
  EXPECT_TRUE(near(as_mask, chosen, 0.8)) << as_mask / chosen;
  EXPECT_TRUE(near(random, chosen, 0.1)) << random / chosen;
  EXPECT_TRUE(near(kept, chosen, 0.1)) << kept / chosen;
  EXPECT_GT(drawn.size(), 1300u) << "of 2000: they come from the whole vocabulary";
  for (const auto id : drawn) EXPECT_FALSE(rules.special[id]) << id << ": specials are never drawn";
  EXPECT_TRUE(std::is_sorted(masked.positions.begin(), masked.positions.end()));
  std::set<int32_t> positions(masked.positions.begin(), masked.positions.end());
  for (size_t i = 0; i < ids.size(); ++i)
    ASSERT_TRUE(positions.contains(static_cast<int32_t>(i)) || masked.ids[i] == ids[i]);
}

TEST_F(Masking, SpecialsAreNeverChosen) {
  const MaskRules rules(tokenizer, vocabulary, options(1.0));
  std::vector<int32_t> ids{*tokenizer.special_id("cls_token")}, ordinary;
  for (const auto* role : {"sep_token", "pad_token", "unk_token", "mask_token"}) {
    ids.push_back(*tokenizer.id_of("movie"));
    ids.push_back(*tokenizer.special_id(role));
  }
  const auto masked = mask(ids, rules, 1);
  EXPECT_EQ(masked.positions, (std::vector<int32_t>{1, 3, 5, 7}));
  for (const int i : {0, 2, 4, 6, 8}) EXPECT_EQ(masked.ids[i], ids[i]);
}

TEST_F(Masking, TheTokensOfAWordAreChosenTogether) {
  const MaskRules rules(tokenizer, vocabulary, options(0.3, true)), apart(tokenizer, vocabulary, options(0.3, false));
  const auto ids = sequence(tokenizer, rules, 20000, 2);
  const auto split = [&](const MaskRules& rules) {
    const auto masked = mask(ids, rules, 3);
    const std::set<int32_t> chosen(masked.positions.begin(), masked.positions.end());
    int64_t split = 0;
    for (size_t i = 2; i + 1 < ids.size(); ++i)
      split += tokenizer.token_of(ids[i]).starts_with("##") &&
               chosen.contains(static_cast<int32_t>(i)) != chosen.contains(static_cast<int32_t>(i - 1));
    return split;
  };
  EXPECT_EQ(split(rules), 0);
  EXPECT_GT(split(apart), 1000);
  // A word's tokens and not its neighbour's: words are chosen with the probability of a token.
  const auto masked = mask(ids, rules, 3);
  EXPECT_NEAR(static_cast<double>(masked.positions.size()) / ids.size(), 0.3, 0.02);
}

TEST_F(Masking, ByteLevelWordsBeginWithABlank) {
  const auto bytes = data::Tokenizer::load(fixture("parity/tokenizers/bytebpe-roberta"));
  const MaskRules rules(bytes, bytes.vocab_size(), options(0.4, true));
  data::Tokenizer::Options o;
  o.details = true;
  std::string text;
  for (int i = 0; i < 200; ++i) text += " extraordinarily unbelievable";
  const auto encoding = bytes.encode(text.substr(1), o);
  ASSERT_GT(encoding.ids.size(), 500u) << "words of several tokens";
  const auto masked = mask(encoding.ids, rules, 1);
  const std::set<int32_t> chosen(masked.positions.begin(), masked.positions.end());
  ASSERT_GT(chosen.size(), 100u);
  for (size_t i = 1; i < encoding.ids.size(); ++i) {
    if (encoding.words[i] < 0 || encoding.words[i] != encoding.words[i - 1]) continue;
    EXPECT_EQ(chosen.contains(static_cast<int32_t>(i)), chosen.contains(static_cast<int32_t>(i - 1))) << i;
  }
}

TEST_F(Masking, ATokenizerWithoutAMaskIsASentence) {
  const Scratch folder;
  write_text(folder / "vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\nthe\n");
  const auto message = message_of([&] { MaskRules(data::Tokenizer::load(folder.path), 5, options()); });
  EXPECT_TRUE(message.starts_with("the tokenizer has no mask token")) << message;
}

// ---- the stream

struct Stream : Masking {
  Stream() {
    const Json config{{"model_type", "bert"},          {"vocab_size", vocabulary}, {"hidden_size", 16},
                      {"num_hidden_layers", 2},        {"num_attention_heads", 2}, {"intermediate_size", 24},
                      {"max_position_embeddings", 40}, {"type_vocab_size", 2}};
    torch::manual_seed(1);
    model = models::find_architecture(config).create(config, {"masked_lm"});
    sequences = std::make_unique<features::TextInputs>(*model, 32);
    for (int64_t i = 0; i < 10; ++i) {
      const auto ids = sequence(tokenizer, rules, 2 + 3 * i, 100 + i);
      sequences->add(ids, std::vector<int32_t>(ids.size(), 0));
    }
    model->unfreeze_only(all_groups(*model));
    model->eval();
  }
  MaskRules rules{tokenizer, vocabulary, options(0.3)};
  std::shared_ptr<models::Model> model;
  std::unique_ptr<features::TextInputs> sequences;
  const std::vector<int64_t> examples{2, 5, 9, 0};
};

TEST_F(Stream, MasksAreAFunctionOfSeedEpochAndExampleAlone) {
  const MaskedLm stream(*model, *sequences, rules, 1), again(*model, *sequences, rules, 1),
      other(*model, *sequences, rules, 2);
  const auto ids = [](const MaskedLm& s, const std::vector<int64_t>& examples, uint64_t epoch) {
    return s.enter(examples, epoch).at("text").kept.at("input_ids").values;
  };
  const auto whole = ids(stream, examples, 3);
  EXPECT_TRUE(same(whole, ids(again, examples, 3)));
  EXPECT_FALSE(same(whole, ids(stream, examples, 4)));
  EXPECT_FALSE(same(whole, ids(other, examples, 3)));
  EXPECT_TRUE(same(ids(stream, examples, train::kEvaluation), ids(again, examples, train::kEvaluation)));
  // In another batch, at another place.
  EXPECT_TRUE(
      same(ids(stream, {9}, 3), whole.narrow(0, sequences->length(2) + sequences->length(5), sequences->length(9))));
}

TEST_F(Stream, TheLossAtListedRowsEqualsThatOverAllPositions) {
  const MaskedLm stream(*model, *sequences, rules, 1);
  const auto gradients = [&] {
    std::map<std::string, torch::Tensor> all;
    for (auto& item : model->parameters_by_key()) {
      all[item.key()] = item.value().grad().clone();
      item.value().mutable_grad() = torch::Tensor();
    }
    return all;
  };
  const auto listed =
      stream.loss_sum(train::forward_behind(*model, stream.enter(examples, 3), stream.reads(examples, 3)), examples, 3);
  listed.backward();
  const auto at_listed = gradients();

  // All positions, with -100 where nothing was chosen: as transformers computes it.
  const auto entering = stream.enter(examples, 3);
  const auto logits = train::forward_behind(*model, entering, models::Reads{}).at("logits");
  const auto labels = torch::full({logits.size(0)}, -100, torch::kInt64);
  int64_t start = 0;
  double count = 0;
  for (const auto i : examples) {
    const auto masked = mask(sequences->ids(i), rules, seed_of(1, {"adapt", "mask"}, {3, static_cast<uint64_t>(i)}));
    for (size_t k = 0; k < masked.positions.size(); ++k) labels[start + masked.positions[k]] = masked.labels[k];
    start += sequences->length(i);
    count += static_cast<double>(masked.positions.size());
  }
  namespace F = torch::nn::functional;
  const auto everywhere =
      F::cross_entropy(logits, labels, F::CrossEntropyFuncOptions().reduction(torch::kSum).ignore_index(-100));
  everywhere.backward();
  EXPECT_EQ(stream.weight(examples, 3), count);
  ASSERT_GT(count, 5);
  EXPECT_NEAR(listed.item<double>(), everywhere.item<double>(), 1e-5 * everywhere.item<double>());
  double largest = 0;
  const auto whole = gradients();
  for (const auto& item : whole) largest = std::max(largest, item.second.abs().max().item<double>());
  for (const auto& [key, gradient] : whole)
    EXPECT_LE((at_listed.at(key) - gradient).abs().max().item<double>(), 5e-6 * largest) << key;
}

TEST_F(Stream, SequencesInWhichNothingWasChosenCountNothing) {
  MaskRules none(tokenizer, vocabulary, options(0));
  const MaskedLm stream(*model, *sequences, none, 1);
  EXPECT_EQ(stream.weight(examples, 0), 0);
  EXPECT_EQ(train::evaluate(*model, stream, 20, false).loss, 0);
  // Some with and some without in one batch: short sequences have none now and then.
  const MaskRules few(tokenizer, vocabulary, options(0.05));
  const MaskedLm sparse(*model, *sequences, few, 1);
  EXPECT_GT(train::evaluate(*model, sparse, 1000, false).loss, 5) << "about ln 2000";
}

TEST_F(Stream, EvaluationIsTheSameInAnyBatches) {
  const MaskedLm stream(*model, *sequences, rules, 1);
  const auto a = train::evaluate(*model, stream, 1000, false).loss, b = train::evaluate(*model, stream, 20, false).loss;
  EXPECT_NEAR(a, b, 1e-6 * a);
}

// ---- packing

struct Packing : Stream {
  std::vector<std::vector<int32_t>> packed(const std::vector<std::string_view>& documents, int64_t max_length) {
    features::TextInputs into(*model, max_length);
    pack(tokenizer, documents, max_length, into);
    std::vector<std::vector<int32_t>> all;
    for (int64_t i = 0; i < into.size(); ++i) all.emplace_back(into.ids(i).begin(), into.ids(i).end());
    return all;
  }
  int32_t cls = *tokenizer.special_id("cls_token"), sep = *tokenizer.special_id("sep_token");
};

TEST_F(Packing, KeepsEveryTokenOnceWithinTheLength) {
  std::vector<std::string> texts;
  Random random(4);
  for (int i = 0; i < 60; ++i) {
    std::string text;
    for (uint64_t w = 0; w < random.below(i % 7 == 0 ? 60 : 9); ++w)
      text += (w ? " " : "") + std::string(w % 3 ? "movie" : "boring characters");
    texts.push_back(text);
  }
  const std::vector<std::string_view> documents(texts.begin(), texts.end());
  data::Tokenizer::Options plain;
  plain.add_special_tokens = false;
  std::vector<int32_t> expected;
  for (const auto& encoding : tokenizer.encode_batch(documents, {}, plain))
    expected.insert(expected.end(), encoding.ids.begin(), encoding.ids.end());
  ASSERT_GT(expected.size(), 300u);
  for (const int64_t max_length : {3, 4, 5, 8, 16, 17, 64, 1000}) {
    std::vector<int32_t> found;
    int64_t full = 0;
    const auto sequences = packed(documents, max_length);
    for (const auto& one : sequences) {
      EXPECT_LE(static_cast<int64_t>(one.size()), max_length);
      EXPECT_EQ(one.front(), cls);
      EXPECT_EQ(one.back(), sep);
      full += static_cast<int64_t>(one.size()) >= max_length - 1;
      for (const auto id : one)
        if (id != cls && id != sep) found.push_back(id);
    }
    EXPECT_EQ(found, expected) << max_length;
    EXPECT_GE(full, static_cast<int64_t>(sequences.size()) - 1) << "only the last sequence is short, " << max_length;
  }
}

TEST_F(Packing, ASeparatorStandsBetweenDocuments) {
  const auto movie = *tokenizer.id_of("movie"), boring = *tokenizer.id_of("boring");
  using Sequences = std::vector<std::vector<int32_t>>;
  EXPECT_EQ(packed({"movie", "", "boring movie"}, 10), (Sequences{{cls, movie, sep, boring, movie, sep}}));
  EXPECT_EQ(packed({"movie movie movie movie", "boring"}, 5),
            (Sequences{{cls, movie, movie, movie, sep}, {cls, movie, sep, boring, sep}}));
  EXPECT_EQ(packed({"movie movie", "boring"}, 5), (Sequences{{cls, movie, movie, sep}, {cls, boring, sep}}))
      << "no room behind a separator";
  EXPECT_EQ(packed({"", ""}, 5), Sequences{});
}

}  // namespace
}  // namespace graft::adapt
