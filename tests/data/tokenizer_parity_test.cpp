// Ids, type ids and offsets equal those of the tokenizers that the published models were trained with, in every stored
// case (tests/parity/tokenizers): transformers 4.57's fast ones, and for spm-unigram SentencePiece itself, which the fast
// one is not (no byte fallback). meta.json counts the cases in which transformers 5.17 has others.
#include <gtest/gtest.h>

#include <fstream>

#include "graft/data/tokenizers/tokenizer.h"
#include "tests/fixtures.h"

namespace graft::data {
namespace {

Tokenizer::Options options_of(const Json& c, bool details) {
  Tokenizer::Options options{.details = details};
  const auto strategy = c.value("truncation", "longest_first");
  if (c.contains("max_length")) options.max_length = c["max_length"].get<int64_t>();
  if (strategy == "only_first") options.truncation = Tokenizer::Truncation::only_first;
  if (strategy == "only_second") options.truncation = Tokenizer::Truncation::only_second;
  return options;
}

class TokenizerParity : public testing::TestWithParam<std::string> {};

TEST_P(TokenizerParity, EveryCase) {
  const auto folder = tests::fixture("parity/tokenizers/" + GetParam());
  const auto tokenizer = Tokenizer::load(folder);
  std::ifstream in(folder / "cases.jsonl");
  std::string line;
  int cases = 0;
  for (; std::getline(in, line); ++cases) {
    const auto c = Json::parse(line);
    const auto text = c["text"].get<std::string>();
    for (const bool details : {true, false}) {
      const auto options = options_of(c, details);
      const auto found = c.contains("pair") ? tokenizer.encode(text, c["pair"].get<std::string>(), options)
                                            : tokenizer.encode(text, options);
      ASSERT_EQ(Json(found.ids), c["ids"]) << line;
      ASSERT_EQ(Json(found.type_ids), c["type_ids"]) << line;
      if (details && c.contains("offsets")) {
        ASSERT_EQ(Json(found.offsets), c["offsets"]) << line;
      }
    }
  }
  EXPECT_GT(cases, 150);
}

INSTANTIATE_TEST_SUITE_P(Kinds, TokenizerParity,
                         testing::Values("wordpiece-lower", "wordpiece-cased", "bytebpe-roberta", "bytebpe-deberta",
                                         "bytebpe-starcoder", "bytebpe-llama3", "spm-unigram", "spm-bpe-llama"),
                         [](const auto& info) {
                           auto name = info.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace graft::data
