// graft predict on a causal model: prompts go on.
#include <iostream>

#include "cli/engine/commands.h"
#include "cli/engine/texts.h"
#include "graft/core/error.h"
#include "graft/core/threads.h"
#include "graft/io/fields.h"
#include "graft/run/generation.h"
#include "graft/run/text_task.h"

namespace graft::cli {

void generate_command(const models::Source& source, const Json& request) {
  at::set_num_threads(static_cast<int>(available_cores()));
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
  int64_t done = 0;
  const auto flush = [&] {
    if (prompts.empty()) return;
    run::OnText on_text;
    if (streams) {
      fmt::print("{}", prompts.front());
      on_text = [](int64_t, const std::string& part) {
        fmt::print("{}", part);
        std::fflush(stdout);
      };
    }
    const auto results = generator.generate(prompts, done, on_text);
    for (size_t i = 0; i < results.size(); ++i) {
      const auto& r = results[i];
      if (json)
        std::cout << Json{{"text", prompts[i]}, {"generated", r.text}, {"tokens", r.ids.size()}, {"reason", r.reason}}
                         .dump(-1, ' ', false, Json::error_handler_t::replace)
                  << "\n";
      else if (streams) fmt::print("\n");
      else fmt::print("{}{}\n", prompts[i], r.text);
    }
    std::cout.flush();
    done += static_cast<int64_t>(prompts.size());
    prompts.clear();
  };
  for_each_text(request, [&](std::string_view text, std::string_view) {
    prompts.emplace_back(text);
    if (static_cast<int64_t>(prompts.size()) >= options.batch_size) flush();
  });
  flush();
}

}  // namespace graft::cli
