#include "graft/data/tokenizers/training.h"

#include <gtest/gtest.h>

#include "graft/core/json.h"
#include "graft/data/tokenizers/tokenizer.h"
#include "tests/fixtures.h"

namespace graft::data {
namespace {

using tests::message_of;
using tests::Scratch;

std::vector<std::string> some_texts() {
  std::vector<std::string> texts;
  for (int i = 0; i < 60; ++i)
    texts.push_back("the library reads " + std::to_string(i) + " files and returns the text of each of them");
  texts.push_back("def read(path):\n    return open(path).read()\n");
  return texts;
}

Tokenizer learned(const Scratch& folder, const TokenizerTraining& options) {
  for (const auto& [name, content] : train_tokenizer(some_texts(), options)) tests::write_text(folder / name, content);
  return Tokenizer::load(folder.path);
}

TEST(TokenizerTraining, AnyTextComesBackAndFrequentWordsAreOneToken) {
  const Scratch folder;
  const auto tokenizer = learned(folder, {.vocab_size = 400});
  for (const std::string text : {"the library reads files", "  def f(x):\n\treturn x  ", "naïve Größe 漢字 🙂",
                                 "\r\n\x01 0.5e-3", "<|other|>"})
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(text, {}).ids, false), text);
  EXPECT_EQ(tokenizer.encode(" library", {}).ids.size(), 1u);
  EXPECT_EQ(tokenizer.encode(" qzx", {}).ids.size(), 4u) << "what was never met is bytes";
  EXPECT_EQ(tokenizer.encode("", {}).ids.size(), 0u);
}

TEST(TokenizerTraining, TheVocabularyHasTheSizeThatWasAskedForAndSpecialTokensComeFirst) {
  const Scratch folder;
  const auto tokenizer =
      learned(folder, {.vocab_size = 300, .special_tokens = {"<fim_prefix>", "<fim_middle>", "<fim_suffix>"}});
  EXPECT_EQ(tokenizer.vocab_size(), 300);
  EXPECT_EQ(tokenizer.id_of("<|endoftext|>"), 0);
  EXPECT_EQ(tokenizer.id_of("<fim_suffix>"), 3);
  EXPECT_EQ(tokenizer.special_id("eos_token"), 0);
  EXPECT_EQ(tokenizer.encode("a<fim_middle>b", {}).ids.size(), 3u);
  EXPECT_EQ(tokenizer.decode({0, 2}, true), "");
  const Scratch large;
  EXPECT_LT(learned(large, {.vocab_size = 100000}).vocab_size(), 1000) << "few texts have few pairs";
}

TEST(TokenizerTraining, TheSameTextsGiveTheSameBytes) {
  const TokenizerTraining options{.vocab_size = 380};
  EXPECT_EQ(train_tokenizer(some_texts(), options), train_tokenizer(some_texts(), options));
}

TEST(TokenizerTraining, BadInputIsASentence) {
  const auto message = [](const std::vector<std::string>& texts, const TokenizerTraining& options) {
    return message_of([&] { train_tokenizer(texts, options); });
  };
  EXPECT_NE(message({"a"}, {.vocab_size = 256}).find("vocab-size: expected at least 257 (256 bytes and 1 special"),
            std::string::npos);
  EXPECT_NE(message({}, {}).find("there are no texts"), std::string::npos);
  EXPECT_NE(message({"good", "\xff"}, {}).find("text 1 is not UTF-8"), std::string::npos);
  EXPECT_NE(message({"a"}, {.special_tokens = {""}}).find("special tokens: expected a text"), std::string::npos);
  EXPECT_NE(message({"a"}, {.special_tokens = {"<|endoftext|>"}}).find("expected each once"), std::string::npos);
}

}  // namespace
}  // namespace graft::data
