// Conversations as text, by the chat template that is published with a model, and which parts of it are answers.
// Source: transformers' apply_chat_template; the template runs in minijinja (rust/tokenizers_c/src/chat.rs).
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "graft/core/json.h"
#include "graft/data/tokenizers/tokenizer.h"

namespace graft::data {

class ChatTemplate {
 public:
  /// `where` names the template in messages; `special_tokens`: bos_token, eos_token, ... as the template reads them; `now`
  /// is what strftime_now shows, in seconds since 1970. Throws Kind::model for a template that cannot be parsed.
  ChatTemplate(const std::string& source, std::string where, Json special_tokens, int64_t now);
  /// That of the file when it is given, else the tokenizer's own. Throws Kind::model when it has none.
  static ChatTemplate of(const Tokenizer& tokenizer, const std::filesystem::path& file, int64_t now);

  struct Rendered {
    std::string text;
    std::vector<std::pair<size_t, size_t>>
        answers;               // bytes [begin, end) that the assistant says, its end token counted
    int64_t lost_answers = 0;  // earlier ones that the template writes otherwise once more follows
  };
  /// `conversation` has `messages`, and may have `tools` and other variables of the template. What the template marks by
  /// {% generation %} is an answer; without such marks, what an assistant message adds behind the generation prompt.
  /// Throws Kind::data when the template refuses the conversation, or leaves the last answer nowhere to be found.
  Rendered render(const Json& conversation) const;
  /// Up to where the assistant begins to speak.
  std::string prompt(const Json& conversation) const;

 private:
  std::string run(const Json& conversation, size_t messages, bool add_generation_prompt) const;

  std::string where_;
  Json special_tokens_;
  std::shared_ptr<void> handle_;
  bool marks_answers_ = false;
};

/// Seconds since 1970 of a day "YYYY-MM-DD", at its beginning. Throws Kind::usage for another text.
int64_t day_seconds(const std::string& day);
/// Today, as the clock says.
std::string today();

}  // namespace graft::data
