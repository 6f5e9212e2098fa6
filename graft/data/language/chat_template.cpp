#include "graft/data/language/chat_template.h"

#include <algorithm>
#include <chrono>
#include <ctime>

#include "graft/core/error.h"
#include "graft/io/file.h"
#include "tokenizers_c.h"

namespace graft::data {
namespace {

// As rust/tokenizers_c/include/tokenizers_c.h says: U+FDD0 and U+FDD1.
constexpr std::string_view kBegin = "\xef\xb7\x90", kEnd = "\xef\xb7\x91";

struct CText {
  char* text = nullptr;
  ~CText() { tokenizers_c_free_text(text); }
};

/// Bytes that two texts begin with, whole characters only.
size_t common_prefix(std::string_view a, std::string_view b) {
  auto n = static_cast<size_t>(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin());
  while (n > 0 && n < b.size() && (b[n] & 0xC0) == 0x80) --n;
  return n;
}

/// Takes the marks out of the text.
ChatTemplate::Rendered between_marks(std::string_view marked) {
  ChatTemplate::Rendered rendered;
  for (size_t i = 0; i < marked.size();) {
    const auto rest = marked.substr(i);
    if (rest.starts_with(kBegin)) {
      rendered.answers.emplace_back(rendered.text.size(), rendered.text.size());
      i += kBegin.size();
    } else if (rest.starts_with(kEnd)) {
      if (!rendered.answers.empty()) rendered.answers.back().second = rendered.text.size();
      i += kEnd.size();
    } else {
      rendered.text += marked[i++];
    }
  }
  return rendered;
}

}  // namespace

ChatTemplate::ChatTemplate(const std::string& source, std::string where, Json special_tokens, int64_t now)
    : where_(std::move(where)), special_tokens_(std::move(special_tokens)) {
  ChatTemplateC* handle = nullptr;
  const CText problem{tokenizers_c_chat_template({source.data(), source.size()}, now, &handle)};
  GRAFT_CHECK(model, !problem.text, "{}: the chat template cannot be read: {}. Correct it.", where_, problem.text);
  handle_ = {handle, [](void* p) { tokenizers_c_chat_template_free(static_cast<ChatTemplateC*>(p)); }};
  marks_answers_ = tokenizers_c_chat_marks_answers(handle) != 0;
}

ChatTemplate ChatTemplate::of(const Tokenizer& tokenizer, const std::filesystem::path& file, int64_t now) {
  if (!file.empty()) return {io::read_file(file), file.string(), tokenizer.special_tokens(), now};
  const auto source = tokenizer.chat_template();
  GRAFT_CHECK(
      model, !source.empty(),
      "the tokenizer has no chat template, so rows of messages cannot be written as the model wants them. Name a "
      "Jinja file by language.chat_template, or give rows of prompt and completion.");
  return {source, "the tokenizer's chat_template", tokenizer.special_tokens(), now};
}

std::string ChatTemplate::run(const Json& conversation, size_t messages, bool add_generation_prompt) const {
  auto context = special_tokens_;
  context.update(conversation);
  auto& list = context["messages"];
  list.erase(list.begin() + static_cast<std::ptrdiff_t>(messages), list.end());
  context["add_generation_prompt"] = add_generation_prompt;
  for (const auto* name : {"tools", "documents"})
    if (!context.contains(name)) context[name] = nullptr;
  const auto json = context.dump();
  CText text;
  const CText problem{
      tokenizers_c_chat_render(static_cast<ChatTemplateC*>(handle_.get()), {json.data(), json.size()}, &text.text)};
  GRAFT_CHECK(data, !problem.text, "{} refuses the conversation: {}", where_, problem.text);
  return text.text;
}

ChatTemplate::Rendered ChatTemplate::render(const Json& conversation) const {
  const auto& messages = conversation.at("messages");
  const auto whole = run(conversation, messages.size(), false);
  if (marks_answers_) return between_marks(whole);
  Rendered rendered{.text = whole};
  const std::string_view text = rendered.text;
  for (size_t i = 0; i < messages.size(); ++i) {
    if (messages[i].value("role", "") != "assistant") continue;
    const auto before = run(conversation, i, true);
    auto begin = common_prefix(before, text);
    // A prompt may say more than the history keeps, for example a tag that opens a thought.
    bool found = begin == before.size();
    if (const auto history = found ? std::string() : run(conversation, i, false); !found)
      found = text.starts_with(history) && begin >= history.size();
    size_t end = text.size();
    if (i + 1 < messages.size()) {
      const auto with = run(conversation, i + 1, false);
      found = found && text.starts_with(with);
      end = with.size();
    }
    if (found && begin < end) rendered.answers.emplace_back(begin, end);
    else if (i + 1 < messages.size()) ++rendered.lost_answers;
    else
      fail(Kind::data,
           "{} writes the history before the last answer in another way once the answer is there, so the answer cannot "
           "be told from the rest. Put {{% generation %}} and {{% endgeneration %}} around it in the template, or set "
           "language.learn to everything.",
           where_);
  }
  return rendered;
}

std::string ChatTemplate::prompt(const Json& conversation) const {
  return between_marks(run(conversation, conversation.at("messages").size(), true)).text;
}

int64_t day_seconds(const std::string& day) {
  std::tm time{};
  const auto* end = strptime(day.c_str(), "%Y-%m-%d", &time);
  GRAFT_CHECK(usage, end && *end == '\0', "language.date: expected a day as 2026-01-31, found `{}`.", day);
  return static_cast<int64_t>(timegm(&time));
}

std::string today() {
  const auto now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  std::tm time{};
  localtime_r(&now, &time);
  char text[16];
  std::strftime(text, sizeof text, "%Y-%m-%d", &time);
  return text;
}

}  // namespace graft::data
