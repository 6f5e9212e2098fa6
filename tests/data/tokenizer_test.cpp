#include "graft/data/tokenizers/tokenizer.h"

#include <gtest/gtest.h>

#include "graft/core/error.h"
#include "tests/fixtures.h"

namespace graft::data {
namespace {

namespace fs = std::filesystem;

using tests::message_of;
using tests::Scratch;
using tests::write_text;

fs::path parity(const std::string& kind) { return tests::fixture("parity/tokenizers/" + kind); }

const std::string kSmallVocabulary = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nthe\ncat\nThe\n##s\n";

std::vector<int32_t> ids(const Tokenizer& tokenizer, const std::string& text) { return tokenizer.encode(text, {}).ids; }

TEST(Tokenizer, SaysWhatItLookedForWhenThereIsNothing) {
  Scratch folder;
  write_text(folder / "notes.md", "");
  const auto message = message_of([&] { Tokenizer::load(folder.path); });
  EXPECT_NE(message.find("no tokenizer found; expected tokenizer.json, or vocab.txt, or vocab.json with merges.txt, "
                         "or spm.model, or tokenizer.model; the folder has notes.md"),
            std::string::npos)
      << message;
  EXPECT_NE(message_of([&] {
              Tokenizer::load(folder / "absent");
            }).find("expected a folder with the files of a tokenizer, found nothing there"),
            std::string::npos);
}

TEST(Tokenizer, NamesTheBrokenFileAndThePosition) {
  Scratch folder;
  write_text(folder / "tokenizer.json", "{\"version\": ");
  EXPECT_NE(message_of([&] { Tokenizer::load(folder.path); }).find("tokenizer.json: not JSON at byte 13"),
            std::string::npos);
  write_text(folder / "tokenizer.json", "{\"version\": \"1.0\", \"model\": {\"type\": \"Other\"}}");
  EXPECT_NE(message_of([&] { Tokenizer::load(folder.path); }).find("not a tokenizer that can be read"),
            std::string::npos);
  write_text(folder / "tokenizer.json", "[]");
  EXPECT_NE(
      message_of([&] { Tokenizer::load(folder.path); }).find("tokenizer.json: expected a JSON object, found array"),
      std::string::npos);
  write_text(folder / "tokenizer_config.json", "{]");
  EXPECT_NE(message_of([&] { Tokenizer::load(folder.path); }).find("tokenizer_config.json: not JSON at byte 2"),
            std::string::npos);
}

TEST(Tokenizer, NamesAMissingSpecialToken) {
  Scratch folder;
  write_text(folder / "vocab.txt", "[UNK]\n[PAD]\n<s>\n");
  const auto tokenizer = Tokenizer::load(folder.path);
  EXPECT_EQ(tokenizer.special_id("sep_token"), 3);  // appended, as transformers does
  EXPECT_EQ(tokenizer.special_id("cls_token"), 4);
  write_text(folder / "vocab.txt", "the\ncat\n");
  EXPECT_NE(message_of([&] {
              Tokenizer::load(folder.path);
            }).find("the vocabulary has no unk_token `[UNK]`; name the right token in special_tokens_map.json"),
            std::string::npos);
}

TEST(Tokenizer, AsksWhichByteLevelTokenizerItIs) {
  Scratch folder;
  write_text(folder / "vocab.json", "{\"a\": 0}");
  write_text(folder / "merges.txt", "#version: 0.2\n");
  write_text(folder / "config.json", "{\"model_type\": \"bert\"}");
  const auto message = message_of([&] { Tokenizer::load(folder.path); });
  EXPECT_NE(message.find(
                "expected model_type roberta, deberta, gpt2, gpt_bigcode or starcoder2 in config.json (found `bert`)"),
            std::string::npos)
      << message;
  write_text(folder / "config.json", "{\"model_type\": \"gpt2\"}");
  write_text(folder / "merges.txt", "#version: 0.2\na b c\n");
  EXPECT_NE(message_of([&] {
              Tokenizer::load(folder.path);
            }).find("merges.txt, line 2: expected two tokens with one blank between them, found `a b c`"),
            std::string::npos);
}

TEST(Tokenizer, LowerCasesWhereTheFilesAreSilent) {
  Scratch folder;
  write_text(folder / "vocab.txt", kSmallVocabulary);
  EXPECT_EQ(ids(Tokenizer::load(folder.path), "The cats"), (std::vector<int32_t>{2, 5, 6, 8, 3}));
  write_text(folder / "tokenizer_config.json", "{\"do_lower_case\": false}");
  EXPECT_EQ(ids(Tokenizer::load(folder.path), "The cats"), (std::vector<int32_t>{2, 7, 6, 8, 3}));
}

TEST(Tokenizer, NullSettingsAreSilentAndWrongOnesNamed) {
  Scratch folder;
  write_text(folder / "vocab.txt", kSmallVocabulary);
  write_text(folder / "tokenizer_config.json",
             "{\"do_lower_case\": null, \"tokenizer_class\": null, \"strip_accents\": null, \"cls_token\": null}");
  EXPECT_EQ(ids(Tokenizer::load(folder.path), "The cats"), (std::vector<int32_t>{2, 5, 6, 8, 3}));
  write_text(folder / "tokenizer_config.json", "{\"do_lower_case\": \"no\"}");
  EXPECT_NE(message_of([&] {
              Tokenizer::load(folder.path);
            }).find("the tokenizer files have a value of a kind that was not expected"),
            std::string::npos);
}

TEST(Tokenizer, ReadsLinesVerbatim) {
  Scratch folder;
  write_text(folder / "vocab.txt", "[PAD]\r\n[UNK]\r\n[CLS]\r\n[SEP]\r\n[MASK]\r\n\r\n \r\ncat");
  const auto tokenizer = Tokenizer::load(folder.path);
  EXPECT_EQ(tokenizer.id_of("cat"), 7);
  EXPECT_EQ(tokenizer.vocab_size(), 8);
  write_text(folder / "vocab.txt", "[PAD]\n\xff\n");
  EXPECT_NE(message_of([&] { Tokenizer::load(folder.path); }).find("vocab.txt: line 2 is not UTF-8"),
            std::string::npos);
}

TEST(Tokenizer, BatchEqualsRowsOneByOne) {
  const auto tokenizer = Tokenizer::load(parity("bytebpe-roberta"));
  std::vector<std::string> texts;
  for (int i = 0; i < 200; ++i) texts.push_back("row " + std::to_string(i * i) + std::string(i % 7, '!'));
  const std::vector<std::string_view> views(texts.begin(), texts.end());
  const Tokenizer::Options options{.max_length = 9, .details = true};
  const auto batch = tokenizer.encode_batch(views, views, options);
  for (size_t i = 0; i < texts.size(); ++i) {
    const auto one = tokenizer.encode(texts[i], texts[i], options);
    ASSERT_EQ(batch[i].ids, one.ids);
    ASSERT_EQ(batch[i].offsets, one.offsets);
    ASSERT_LE(batch[i].ids.size(), 9u);
  }
  EXPECT_TRUE(tokenizer.encode_batch({}, {}, options).empty());
}

TEST(Tokenizer, RefusesALengthWithoutRoom) {
  const auto tokenizer = Tokenizer::load(parity("bytebpe-roberta"));
  EXPECT_EQ(message_of([&] { tokenizer.encode("a", "b", {.max_length = 3}); }),
            "max_length: 3 leaves no room, this tokenizer adds 4 special tokens; raise it above 4");
  EXPECT_EQ(tokenizer.encode("a", {.max_length = 2}).ids, (std::vector<int32_t>{0, 2}));
  EXPECT_EQ(message_of([&] { tokenizer.encode("a", {.max_length = -1}); }), "max_length: expected 0 or more, found -1");
}

TEST(Tokenizer, RefusesTextThatIsNotUtf8) {
  const auto tokenizer = Tokenizer::load(parity("wordpiece-lower"));
  EXPECT_NE(message_of([&] { tokenizer.encode("a\xff", {}); }).find("text 0 is not UTF-8"), std::string::npos);
}

TEST(Tokenizer, TellsWordsAndAddedTokensApart) {
  Scratch folder;
  write_text(folder / "vocab.txt", kSmallVocabulary);
  const auto e = Tokenizer::load(folder.path).encode("the cats", {.details = true});
  EXPECT_EQ(e.words, (std::vector<int32_t>{-1, 0, 1, 1, -1}));
  EXPECT_EQ(e.special, (std::vector<uint8_t>{1, 0, 0, 0, 1}));
}

TEST(Tokenizer, KnowsIdsTokensAndRoles) {
  Scratch folder;
  write_text(folder / "vocab.txt", kSmallVocabulary);
  write_text(folder / "tokenizer_config.json", "{\"model_max_length\": 128}");
  const auto tokenizer = Tokenizer::load(folder.path);
  EXPECT_EQ(tokenizer.special_id("mask_token"), 4);
  EXPECT_EQ(tokenizer.special_id("bos_token"), std::nullopt);
  EXPECT_EQ(tokenizer.token_of(6), "cat");
  EXPECT_EQ(tokenizer.id_of("dog"), std::nullopt);
  EXPECT_EQ(tokenizer.model_max_length(), 128);
  EXPECT_EQ(tokenizer.decode({2, 5, 6, 8, 3}, true), "the cats");
  EXPECT_NE(message_of([&] { tokenizer.token_of(99); }).find("the tokenizer has no token with id 99; its ids end at 8"),
            std::string::npos);
  EXPECT_EQ(Tokenizer::load(parity("bytebpe-starcoder")).model_max_length(), std::nullopt);
}

TEST(Tokenizer, IgnoresTruncationAndPaddingOfTheDocument) {
  Scratch folder;
  auto document = nlohmann::json::parse(tests::read_text(parity("wordpiece-cased") / "tokenizer.json"));
  document["truncation"] = {{"direction", "Right"}, {"max_length", 4}, {"strategy", "LongestFirst"}, {"stride", 0}};
  document["padding"] = {{"strategy", {{"Fixed", 50}}},
                         {"direction", "Right"},
                         {"pad_to_multiple_of", nullptr},
                         {"pad_id", 0},
                         {"pad_type_id", 0},
                         {"pad_token", "[PAD]"}};
  write_text(folder / "tokenizer.json", document.dump());
  const auto tokenizer = Tokenizer::load(folder.path);
  const auto text = "one two three four five six seven";
  EXPECT_EQ(ids(tokenizer, text), ids(Tokenizer::load(parity("wordpiece-cased")), text));
  const auto exported = Json::parse(tokenizer.export_files(512).front().second);
  EXPECT_TRUE(exported["truncation"].is_null() && exported["padding"].is_null());
}

TEST(Tokenizer, TheStatedCaseOverrulesTheDocument) {
  Scratch folder;
  for (const auto* name : {"tokenizer.json", "config.json"}) fs::copy(parity("wordpiece-cased") / name, folder / name);
  const auto cased = Tokenizer::load(folder.path);
  write_text(folder / "tokenizer_config.json", "{\"do_lower_case\": true}");
  const auto lowered = Tokenizer::load(folder.path);
  EXPECT_EQ(ids(lowered, "THE"), ids(cased, "the"));
  EXPECT_NE(lowered.fingerprint(), cased.fingerprint());
}

class TokenizerExport : public testing::TestWithParam<std::string> {};

TEST_P(TokenizerExport, ReadsBackToTheSameIds) {
  const auto source = Tokenizer::load(parity(GetParam()));
  Scratch folder;
  for (const auto& [name, content] : source.export_files(77)) write_text(folder / name, content);
  const auto copy = Tokenizer::load(folder.path);
  for (const auto* text : {"Ünïcode <mask> and [MASK] 1234", "  two  blanks ", "<|endoftext|>x"})
    EXPECT_EQ(ids(copy, text), ids(source, text));
  const auto ours = copy.encode("is it good?", "it is.", {}), theirs = source.encode("is it good?", "it is.", {});
  EXPECT_EQ(ours.ids, theirs.ids);
  EXPECT_EQ(ours.type_ids, theirs.type_ids);
  EXPECT_EQ(copy.fingerprint(), source.fingerprint());
  EXPECT_EQ(copy.model_max_length(), 77);
  const auto config = Json::parse(tests::read_text(folder / "tokenizer_config.json"));
  EXPECT_TRUE(config.contains("tokenizer_class"));
  // transformers 5 gives DeBERTa's class pairs of RoBERTa's form (make interop); LLaMA 3's file says so of itself.
  EXPECT_EQ(config["tokenizer_class"] == "PreTrainedTokenizerFast" && config.contains("model_input_names"),
            GetParam() == "bytebpe-deberta" || GetParam() == "bytebpe-llama3");
  EXPECT_EQ(config.contains("do_lower_case"), GetParam() != "bytebpe-roberta" && GetParam() != "bytebpe-starcoder" &&
                                                  GetParam() != "bytebpe-llama3" && GetParam() != "spm-bpe-llama");
  EXPECT_EQ(fs::exists(folder / "tokenizer.json"), !GetParam().starts_with("spm-"));
}

INSTANTIATE_TEST_SUITE_P(Kinds, TokenizerExport,
                         testing::Values("wordpiece-lower", "wordpiece-cased", "bytebpe-roberta", "bytebpe-deberta",
                                         "bytebpe-starcoder", "bytebpe-llama3", "spm-unigram", "spm-bpe-llama"),
                         [](const auto& info) {
                           auto name = info.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST(SentencePiece, ManyTextsAtOnceAreThoseOfOneAtATime) {
  const auto tokenizer = Tokenizer::load(parity("spm-unigram"));
  std::vector<std::string> texts;
  for (int i = 0; i < 200; ++i) texts.push_back("text " + std::to_string(i * 7919) + " [MASK] caf\u00e9");
  const std::vector<std::string_view> views(texts.begin(), texts.end());
  const auto batch = tokenizer.encode_batch(views, {}, {.details = true});
  for (size_t i = 0; i < texts.size(); ++i) {
    const auto alone = tokenizer.encode(texts[i], {.details = true});
    EXPECT_EQ(batch[i].ids, alone.ids);
    EXPECT_EQ(batch[i].offsets, alone.offsets);
    EXPECT_EQ(batch[i].words, alone.words);
  }
}

TEST(SentencePiece, KnowsIdsTokensRolesAndText) {
  const auto tokenizer = Tokenizer::load(parity("spm-unigram"));
  EXPECT_EQ(tokenizer.vocab_size(), 2001);
  EXPECT_EQ(tokenizer.special_id("mask_token"), 2000);  // behind the model's pieces
  EXPECT_EQ(tokenizer.special_id("pad_token"), 0);
  EXPECT_EQ(tokenizer.token_of(2000), "[MASK]");
  EXPECT_EQ(tokenizer.id_of("[SEP]"), 2);
  EXPECT_EQ(tokenizer.id_of("no such piece"), std::nullopt);
  const auto e = tokenizer.encode("the film [MASK] \U0001F600", {.details = true});
  EXPECT_EQ(tokenizer.decode(e.ids, true), "the film\U0001F600");
  EXPECT_EQ(e.special.front(), 1);
  EXPECT_EQ(e.words.front(), -1);
  EXPECT_EQ(e.words[1], 0);
  EXPECT_NE(message_of([&] { tokenizer.encode("a\xff", {}); }).find("text 0: not UTF-8"), std::string::npos);
  EXPECT_NE(message_of([&] { tokenizer.token_of(2001); }).find("its ids end at 2000"), std::string::npos);
}

// As LLaMA 2's own files ask for; ids of the pieces by their names.
TEST(SentencePiece, TheNewerRuleOfLlamaPutsOneBlankBeforeTheWholeText) {
  Scratch folder;
  fs::copy(parity("spm-bpe-llama") / "tokenizer.model", folder / "tokenizer.model");
  write_text(folder / "config.json", "{\"model_type\": \"llama\"}");
  const auto pieces = [&](const char* settings) {
    write_text(folder / "tokenizer_config.json", settings);
    const auto tokenizer = Tokenizer::load(folder.path);
    std::string joined;
    for (const auto id : tokenizer.encode("a</s>b", {}).ids) joined += tokenizer.token_of(id) + "|";
    return joined;
  };
  EXPECT_EQ(pieces("{\"legacy\": true}"), "<s>|\u2581a|</s>|\u2581b|");
  EXPECT_EQ(pieces("{\"legacy\": false}"), "<s>|\u2581a|</s>|b|");
  EXPECT_EQ(pieces("{\"legacy\": false, \"add_bos_token\": false, \"add_eos_token\": true}"), "\u2581a|</s>|b|</s>|");
}

TEST(SentencePiece, NamesAFileThatIsNoModelAndAClassItDoesNotKnow) {
  Scratch folder;
  write_text(folder / "config.json", "{\"model_type\": \"llama\"}");
  write_text(folder / "tokenizer.model", "IQ== 0\nIg== 1\n");  // as LLaMA 3's original folder has it
  EXPECT_NE(message_of([&] { Tokenizer::load(folder.path); }).find("tokenizer.model: not a SentencePiece model"),
            std::string::npos);
  fs::copy(parity("spm-unigram") / "spm.model", folder / "spm.model");
  write_text(folder / "tokenizer_config.json", "{\"tokenizer_class\": \"BertTokenizer\"}");
  const auto message = message_of([&] { Tokenizer::load(folder.path); });
  EXPECT_NE(message.find("spm.model: a SentencePiece model whose special tokens are not known"), std::string::npos)
      << message;
  EXPECT_NE(message.find("`BertTokenizer`"), std::string::npos);
}

// BioClinicalBERT and cased SciBERT have vocab.txt alone.
TEST(Tokenizer, ACasedVocabularyWithoutSettingsKeepsItsCapitals) {
  Scratch folder;
  write_text(folder / "vocab.txt", kSmallVocabulary + "Cat\nDog\n");
  const auto tokens = [&](const char* text) {
    const auto tokenizer = Tokenizer::load(folder.path);
    return tokenizer.token_of(tokenizer.encode(text, {}).ids[1]);
  };
  EXPECT_EQ(tokens("The"), "The");
  write_text(folder / "tokenizer_config.json", "{\"do_lower_case\": true}");
  EXPECT_EQ(tokens("The"), "the");
  fs::remove(folder / "tokenizer_config.json");
  write_text(folder / "vocab.txt", kSmallVocabulary);
  EXPECT_EQ(tokens("The"), "the");
}

}  // namespace
}  // namespace graft::data
