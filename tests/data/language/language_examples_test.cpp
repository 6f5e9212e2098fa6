#include "graft/data/language/language_examples.h"

#include <gtest/gtest.h>

#include "graft/core/error.h"
#include "graft/data/language/fill_in_the_middle.h"
#include "graft/data/language/language_rows.h"
#include "tests/fixtures.h"

namespace graft::data {
namespace {

Tokenizer llama3() { return Tokenizer::load(tests::fixture("parity/tokenizers/bytebpe-llama3")); }
Tokenizer starcoder() { return Tokenizer::load(tests::fixture("parity/tokenizers/bytebpe-starcoder")); }

Ragged<char> rows_of(const std::vector<Json>& rows) {
  Ragged<char> ragged;
  for (const auto& row : rows) ragged.push_back(row.dump());
  return ragged;
}

LanguageOptions options(const std::string& chat_template = "") {
  LanguageOptions o{.date = "2026-01-31"};
  if (!chat_template.empty()) o.chat_template = tests::fixture("parity/chat_templates/" + chat_template).string();
  return o;
}

/// The text of the tokens that are learned.
std::string learned_text(const Tokenizer& tokenizer, const LanguageExamples& examples, int64_t example) {
  std::vector<int32_t> ids;
  for (const auto label : examples.labels[example])
    if (label >= 0) ids.push_back(label);
  return tokenizer.decode(ids, false);
}

std::string whole_text(const Tokenizer& tokenizer, const LanguageExamples& examples, int64_t example) {
  const auto ids = examples.ids[example];
  return tokenizer.decode({ids.begin(), ids.end()}, false);
}

TEST(LanguageExamples, OfAConversationTheAnswersAreLearned) {
  const auto tokenizer = llama3();
  const Json talk{{"messages",
                   {{{"role", "user"}, {"content", "What is it?"}},
                    {{"role", "assistant"}, {"content", "A naïve café."}},
                    {{"role", "user"}, {"content", "And now?"}},
                    {{"role", "assistant"}, {"content", "日本語 😀"}}}}};
  auto o = options("headers.jinja");
  const auto examples = language_examples(tokenizer, rows_of({talk}), o, 500, 1, "training");
  EXPECT_EQ(learned_text(tokenizer, examples, 0), "A naïve café.<|eot_id|>日本語 😀<|eot_id|>");
  EXPECT_EQ(whole_text(tokenizer, examples, 0).find("<|begin_of_text|><|start_header_id|>system"), 0u);
  EXPECT_EQ(whole_text(tokenizer, examples, 0).rfind("<|begin_of_text|>"), 0u) << "the template's own, and no other";
  EXPECT_EQ(examples.labels[0].back(), -100);
  o.learn = "everything";
  const auto all = language_examples(tokenizer, rows_of({talk}), o, 500, 1, "training");
  for (int64_t t = 0; t + 1 < all.ids.length(0); ++t) EXPECT_EQ(all.labels[0][t], all.ids[0][t + 1]);
}

TEST(LanguageExamples, OfAPromptTheCompletionAndItsEndAreLearned) {
  const auto tokenizer = llama3();
  const Json row{{"prompt", "2 + 2 ="}, {"completion", " four"}};
  const auto examples = language_examples(tokenizer, rows_of({row, {{"text", "all of it"}}}), options(), 500, 1, "x");
  const auto end = tokenizer.token_of(*tokenizer.special_id("eos_token"));
  EXPECT_EQ(learned_text(tokenizer, examples, 0), " four" + end);
  EXPECT_EQ(learned_text(tokenizer, examples, 1), "all of it" + end);
  EXPECT_EQ(examples.ids[0].front(), *tokenizer.special_id("bos_token"));
  // A token that holds the border is learned, for it holds a part of the answer.
  const auto inside =
      language_examples(tokenizer, rows_of({{{"prompt", "some wor"}, {"completion", "ds"}}}), options(), 500, 1, "x");
  EXPECT_TRUE(learned_text(tokenizer, inside, 0).ends_with("ds" + end));
}

TEST(LanguageExamples, WithASentencePieceModelToo) {
  const auto tokenizer = Tokenizer::load(tests::fixture("parity/tokenizers/spm-bpe-llama"));
  const Json talk{
      {"messages", {{{"role", "user"}, {"content", "Say it"}}, {{"role", "assistant"}, {"content", "it 𠀀"}}}}};
  const auto examples = language_examples(tokenizer, rows_of({talk, {{"prompt", "2 + 2 ="}, {"completion", " four"}}}),
                                          options("inst.jinja"), 500, 1, "x");
  const auto pieces = [&](int64_t example) {
    std::string text;
    for (const auto label : examples.labels[example])
      if (label >= 0) text += tokenizer.token_of(label);
    return text;
  };
  EXPECT_EQ(pieces(0), "▁it▁<0xF0><0xA0><0x80><0x80>▁</s>");
  EXPECT_EQ(pieces(1), "▁four</s>");
  const auto bos = *tokenizer.special_id("bos_token");
  for (const int64_t i : {0, 1}) {
    const auto ids = examples.ids[i];
    EXPECT_EQ(std::count(ids.begin(), ids.end(), bos), 1);
    EXPECT_EQ(ids.front(), bos);
  }
}

TEST(LanguageExamples, WhatIsTooLongIsCutAndCounted) {
  const auto tokenizer = llama3();
  const Json row{{"prompt", "one two three four five six seven"}, {"completion", " eight"}};
  const auto examples = language_examples(tokenizer, rows_of({row, {{"text", "short"}}}), options(), 5, 1, "x");
  EXPECT_EQ(examples.ids.length(0), 5);
  EXPECT_EQ(examples.truncated, 1);
  EXPECT_EQ(examples.without_answer, 1);
}

TEST(LanguageExamples, AMistakeNamesTheExample) {
  const auto message = tests::message_of([] {
    const Json bad{{"messages",
                    {{{"role", "user"}, {"content", "a"}},
                     {{"role", "user"}, {"content", "b"}},
                     {{"role", "assistant"}, {"content", "c"}}}}};
    language_examples(llama3(), rows_of({{{"text", "fine"}}, bad}), options("inst.jinja"), 50, 1, "training");
  });
  EXPECT_NE(message.find("training example 2: "), std::string::npos) << message;
  EXPECT_NE(message.find("Roles must alternate"), std::string::npos) << message;
}

TEST(LanguageExamples, RefusedConversationsCanBeSkipped) {
  const auto say = [](const std::string& role) { return Json{{"role", role}, {"content", "a"}}; };
  const Json good{{"messages", {say("user"), say("assistant")}}}, bad{{"messages", {say("assistant"), say("user")}}};
  const auto examples =
      language_examples(llama3(), rows_of({good, bad, good}), options("inst.jinja"), 50, 1, "training", BadRows::skip);
  EXPECT_EQ(examples.kept, (std::vector<int64_t>{0, 2}));
  EXPECT_EQ(examples.ids.size(), 2);
  EXPECT_EQ(examples.skipped.count, 1);
  EXPECT_TRUE(examples.skipped.first.front().starts_with("training example 2: ")) << examples.skipped.first.front();
}

TEST(FillInTheMiddle, TakesTextsApartAndLosesNothing) {
  const auto tokenizer = starcoder();
  LanguageOptions o = options();
  o.fill_in_the_middle = 1;
  const FillInTheMiddle middle(tokenizer, o, 3);
  const std::string text = "def add(a, b):\n    return a + b  # žluťoučký\n";
  int suffix_first = 0;
  for (uint64_t i = 0; i < 40; ++i) {
    ASSERT_TRUE(middle.applies(i));
    const auto ids = middle.ids(text, i);
    EXPECT_EQ(ids, middle.ids(text, i)) << "the same each time";
    auto out = tokenizer.decode(ids, false);
    ASSERT_TRUE(out.starts_with("<fim_prefix>")) << out;
    ASSERT_TRUE(out.ends_with("<|endoftext|>")) << out;
    out = out.substr(12, out.size() - 12 - 13);
    const auto s = out.find("<fim_suffix>"), m = out.find("<fim_middle>");
    ASSERT_TRUE(s < m && m != std::string::npos) << out;
    const auto before = out.substr(0, s), after = out.substr(s + 12, m - s - 12), last = out.substr(m + 12);
    suffix_first += before.empty();
    EXPECT_EQ(before + last + after, text);
  }
  EXPECT_GT(suffix_first, 8);
  EXPECT_LT(suffix_first, 32);
  EXPECT_NE(middle.ids(text, 0), middle.ids(text, 1));
}

TEST(FillInTheMiddle, PartsOfALongTextFitAndJoin) {
  const auto tokenizer = starcoder();
  LanguageOptions o = options();
  o.fill_in_the_middle = 0.5;
  const FillInTheMiddle middle(tokenizer, o, 3);
  std::string text;
  for (int i = 0; i < 60; ++i) text += "value_" + std::to_string(i) + " = é\n";
  std::string joined;
  const auto parts = middle.parts(text, 40);
  EXPECT_GT(parts.size(), 3u);
  for (size_t i = 0; i < parts.size(); ++i) {
    joined += parts[i];
    EXPECT_LE(middle.ids(parts[i], i).size(), 48u);
  }
  EXPECT_EQ(joined, text);
  int applied = 0;
  for (uint64_t i = 0; i < 400; ++i) applied += middle.applies(i);
  EXPECT_NEAR(applied, 200, 50);
}

TEST(FillInTheMiddle, WithoutItsTokensIsASentence) {
  LanguageOptions o = options();
  o.fill_in_the_middle = 0.5;
  const auto message = tests::message_of([&] { FillInTheMiddle(llama3(), o, 1); });
  EXPECT_NE(message.find("looked for <fim_prefix>"), std::string::npos) << message;
}

TEST(LanguageRows, AreConversationsPromptsOrTexts) {
  const auto row = [](Json cells) { return language_row("f.jsonl", {.number = 7, .cells = std::move(cells)}, "text"); };
  const Json messages{{{"role", "user"}, {"content", "a"}}, {{"role", "assistant"}, {"content", "b"}}};
  EXPECT_EQ(Json::parse(row({{"messages", messages}, {"text", "x"}})), (Json{{"messages", messages}}));
  EXPECT_EQ(Json::parse(row({{"messages", nullptr}, {"prompt", "a"}, {"completion", "b"}, {"id", 3}})),
            (Json{{"prompt", "a"}, {"completion", "b"}}));
  EXPECT_EQ(Json::parse(row({{"text", "a"}, {"id", 3}})), (Json{{"text", "a"}}));
  const auto refused = [&](Json cells) { return tests::message_of([&] { row(std::move(cells)); }); };
  EXPECT_NE(refused({{"body", "a"}}).find("row 7, column `text`: expected messages, or prompt and completion, or text"),
            std::string::npos)
      << refused({{"body", "a"}});
  EXPECT_NE(refused({{"messages", "hi"}}).find("expected a list of messages"), std::string::npos);
  EXPECT_NE(refused({{"messages", {{{"role", "user"}}}}}).find("message 1: expected an object"), std::string::npos);
  EXPECT_NE(refused({{"messages", {{{"role", "user"}, {"content", "a"}}}}}).find("role assistant"), std::string::npos);
  EXPECT_NE(refused({{"prompt", "a"}, {"completion", ""}}).find("expected text, found none"), std::string::npos);
  EXPECT_NE(refused({{"text", " "}}).find("expected text, found none"), std::string::npos);
}

}  // namespace
}  // namespace graft::data
