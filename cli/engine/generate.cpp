// graft predict on a causal model: prompts go on.
#include <ctime>
#include <iostream>
#include <optional>

#include "cli/engine/commands.h"
#include "cli/engine/texts.h"
#include "graft/core/error.h"
#include "graft/data/language/chat_template.h"
#include "graft/io/fields.h"
#include "graft/run/generation.h"
#include "graft/run/text_task.h"

namespace graft::cli {

void generate_command(const models::Source& source, const Json& request) {
  run::GenerationOptions options;
  std::vector<std::string> mistakes;
  io::read_value(request.value("generation", Json::object()), options, "", mistakes);
  GRAFT_CHECK(usage, mistakes.empty(), "{}", listed(mistakes));
  const bool json = request.value("json", false), streams = request.value("stream", false) && !json;
  if (streams) options.batch_size = 1;
  const auto tokenizer = data::Tokenizer::load(source.folder);
  run::check_tokenizer(tokenizer, source);
  const auto loaded = models::load(source, {"causal_lm"}, 0);
  GRAFT_CHECK(model, loaded.report.fresh.empty(), "{}: has no weights for {}; give a model with its language head.",
              source.folder.string(), listed(loaded.report.fresh));
  loaded.model->eval();
  run::Generator generator(*loaded.model, source, tokenizer, options);

  std::vector<std::string> prompts;
  std::vector<Json> rows;  // of conversations, as long as `prompts`; else empty
  std::optional<data::ChatTemplate> chat;
  int64_t done = 0;
  const auto flush = [&] {
    if (prompts.empty()) return;
    run::OnText on_text;
    if (streams) {
      if (rows.empty()) fmt::print("{}", prompts.front());
      on_text = [](int64_t, const std::string& part) {
        fmt::print("{}", part);
        std::fflush(stdout);
      };
    }
    const auto results = generator.generate(prompts, done, on_text, rows.empty());
    for (size_t i = 0; i < results.size(); ++i) {
      const auto& r = results[i];
      if (json) {
        Json line{{"text", prompts[i]}};
        if (!rows.empty()) line["messages"] = rows[i]["messages"];
        line.update({{"generated", r.text}, {"tokens", r.ids.size()}, {"reason", r.reason}});
        std::cout << line.dump(-1, ' ', false, Json::error_handler_t::replace) << "\n";
      } else if (streams) fmt::print("\n");
      else fmt::print("{}{}\n", rows.empty() ? prompts[i] : "", r.text);
    }
    std::cout.flush();
    done += static_cast<int64_t>(prompts.size());
    prompts.clear();
    rows.clear();
  };
  const auto add = [&](std::string prompt) {
    prompts.push_back(std::move(prompt));
    if (static_cast<int64_t>(prompts.size()) >= options.batch_size) flush();
  };
  for_each_text(
      request,
      [&](std::string_view text, std::string_view) {
        if (!rows.empty()) flush();
        add(std::string(text));
      },
      [&](const Json& row) {
        if (rows.empty()) flush();
        if (!chat) chat = data::ChatTemplate::of(tokenizer, "", std::time(nullptr));
        auto conversation = row;
        // A row that was made for training ends with the answer that is asked for.
        auto& messages = conversation["messages"];
        if (messages.size() > 1 && messages.back().value("role", "") == "assistant")
          messages.erase(messages.size() - 1);
        rows.push_back(conversation);
        add(chat->prompt(conversation));
      });
  flush();
}

}  // namespace graft::cli
