// What transformers renders from templates in the manner of the published ones (tests/parity/chat_templates), and which
// parts are answers.
#include "graft/data/language/chat_template.h"

#include <gtest/gtest.h>

#include <fstream>

#include "graft/core/error.h"
#include "tests/fixtures.h"

namespace graft::data {
namespace {

const Json kTokens{{"bos_token", "<s>"}, {"eos_token", "</s>"}};

ChatTemplate template_named(const std::string& name) {
  const auto file = tests::fixture("parity/chat_templates/" + name + ".jinja");
  return {tests::read_text(file), file.string(), kTokens, day_seconds("2026-01-31")};
}

std::vector<std::string> answers_of(const ChatTemplate::Rendered& rendered) {
  std::vector<std::string> answers;
  for (const auto& [begin, end] : rendered.answers) answers.push_back(rendered.text.substr(begin, end - begin));
  return answers;
}

Json conversation(const std::vector<std::pair<std::string, std::string>>& turns) {
  Json messages = Json::array();
  for (const auto& [role, content] : turns) messages.push_back({{"role", role}, {"content", content}});
  return {{"messages", messages}};
}

TEST(ChatTemplate, RendersAsTransformers) {
  std::ifstream in(tests::fixture("parity/chat_templates/cases.jsonl"));
  int cases = 0;
  for (std::string line; std::getline(in, line); ++cases) {
    const auto c = Json::parse(line);
    const auto chat = template_named(c["template"]);
    if (c.contains("refused")) {
      const auto message = tests::message_of([&] { chat.render(c["conversation"]); });
      EXPECT_NE(message.find("refuses the conversation: " + c["refused"].get<std::string>()), std::string::npos)
          << message;
      continue;
    }
    const auto rendered = chat.render(c["conversation"]);
    EXPECT_EQ(rendered.text, c["text"]) << line;
    if (c.contains("generated")) {
      EXPECT_EQ(Json(answers_of(rendered)), c["generated"]) << line;
    }
    auto before = c["conversation"];
    before["messages"].erase(before["messages"].size() - 1);
    EXPECT_EQ(chat.prompt(before), c["prompt"]) << line;
  }
  EXPECT_GT(cases, 25);
}

TEST(ChatTemplate, AnswersAreWhatTheAssistantAddsBehindThePrompt) {
  const auto talk =
      conversation({{"system", "s"}, {"user", "a"}, {"assistant", "b"}, {"user", "c"}, {"assistant", "d"}});
  EXPECT_EQ(answers_of(template_named("chatml").render(talk)),
            (std::vector<std::string>{"b<|im_end|>\n", "d<|im_end|>\n"}));
  EXPECT_EQ(answers_of(template_named("headers").render(talk)),
            (std::vector<std::string>{"b<|eot_id|>", "d<|eot_id|>"}));
  EXPECT_EQ(answers_of(template_named("inst").render(talk)), (std::vector<std::string>{" b </s>", " d </s>"}));
}

TEST(ChatTemplate, AnAnswerThatIsRewrittenLaterIsCountedAndNotLearned) {
  const auto rendered = template_named("thoughts")
                            .render(conversation({{"user", "1?"},
                                                  {"assistant", "<think>\nhm\n</think>\n\none"},
                                                  {"user", "2?"},
                                                  {"assistant", "<think>\nhm\n</think>\n\ntwo"}}));
  EXPECT_EQ(rendered.lost_answers, 1);
  EXPECT_EQ(answers_of(rendered), (std::vector<std::string>{"<think>\nhm\n</think>\n\ntwo<|im_end|>\n"}));
}

TEST(ChatTemplate, WhatCannotBeUsedIsASentence) {
  const auto message = tests::message_of([] { ChatTemplate("{% for x in %}", "here", Json::object(), 0); });
  EXPECT_NE(message.find("here: the chat template cannot be read: "), std::string::npos) << message;
  EXPECT_NE(message.find("line 1 of the template"), std::string::npos) << message;
  const ChatTemplate backwards(
      "{% for m in messages %}{{ messages[messages|length - loop.index].content }}{% endfor %}", "it", Json::object(),
      0);
  const auto lost = tests::message_of([&] {
    backwards.render(conversation({{"user", "a"}, {"user", "b"}, {"assistant", "c"}}));
  });
  EXPECT_NE(lost.find("{% generation %}"), std::string::npos) << lost;
  EXPECT_NE(tests::message_of([] { day_seconds("31.1.2026"); }).find("expected a day as 2026-01-31"),
            std::string::npos);
}

TEST(ChatTemplate, OfATokenizerIsItsOwnOrTheFiles) {
  const auto tokenizer = Tokenizer::load(tests::fixture("parity/tokenizers/bytebpe-llama3"));
  EXPECT_TRUE(tokenizer.chat_template().empty());
  const auto message = tests::message_of([&] { ChatTemplate::of(tokenizer, "", 0); });
  EXPECT_NE(message.find("the tokenizer has no chat template"), std::string::npos) << message;
  const auto file = tests::fixture("parity/chat_templates/headers.jinja");
  const auto text = ChatTemplate::of(tokenizer, file, day_seconds("2026-01-31")).prompt(conversation({{"user", "a"}}));
  EXPECT_TRUE(text.starts_with("<|begin_of_text|><|start_header_id|>system")) << text;
}

}  // namespace
}  // namespace graft::data
