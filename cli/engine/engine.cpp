// The engine's one door: the launcher opens libgraft_engine.so and hands over a request.
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <new>

#include "cli/engine/commands.h"
#include "graft/core/error.h"
#include "graft/core/interrupt.h"
#include "graft/run/machine.h"

namespace {

using graft::Json;
using graft::Kind;

int complain(Kind kind, const std::string& sentence, bool json) {
  if (json) std::cout << Json{{"error", {{"kind", static_cast<int>(kind)}, {"message", sentence}}}}.dump() << "\n";
  fmt::print(stderr, "graft: {}\n", sentence);
  return static_cast<int>(kind);
}

int serve(const Json& request) {
  namespace cli = graft::cli;
  const auto command = request.at("command").get<std::string>();
  if (!request.contains("recipe"))  // else the recipe says
    graft::run::use_machine(request.value("threads", int64_t{0}), request.value("device", "cpu"));
  Json answer;
  if (command == "run" || command == "adapt" || command == "finetune") answer = cli::run_command(request);
  else if (command == "select") answer = cli::select_command(request);
  else if (command == "evaluate") answer = cli::evaluate_command(request);
  else if (command == "forward") answer = cli::forward_command(request);
  else if (command == "check") answer = cli::check_command(request);
  else if (command == "predict") cli::predict_command(request);
  else if (command == "preprocess") answer = cli::preprocess_command(request);
  else if (command == "retain") answer = cli::retain_command(request);
  else if (command == "tokenize") cli::tokenize_command(request);
  if (request.value("json", false) && !answer.is_null())
    std::cout << answer.dump(-1, ' ', false, Json::error_handler_t::replace) << "\n";
  return answer.is_object() && answer.contains("exit") ? answer["exit"].get<int>() : 0;
}

}  // namespace

/// Returns the process's exit code; nothing is thrown across.
extern "C" int graft_engine_serve(const char* request_text) {
  bool json = false;
  try {
    const auto request = Json::parse(request_text);
    json = request.value("json", false);
    graft::watch_signals();
    return serve(request);
  } catch (const graft::Interrupted& e) {
    fmt::print(stderr, "\ninterrupted; everything is saved. Go on with --resume.\n");
    return 128 + e.signal;
  } catch (const graft::Error& e) {
    return complain(e.kind, e.what(), json);
  } catch (const std::bad_alloc&) {
    return complain(
        Kind::memory,
        "there is not enough memory. Lower train.micro_batch_tokens or train.batch_size, or close other programs.",
        json);
  } catch (const std::exception& e) {
    // ATen throws its own errors; one about memory is the user's to mend.
    const std::string text = e.what();
    if (text.find("can't allocate memory") != std::string::npos || text.find("out of memory") != std::string::npos)
      return complain(
          Kind::memory,
          "there is not enough memory. Lower train.micro_batch_tokens or train.batch_size, or close other programs.",
          json);
    return complain(Kind::bug, "this is a bug in graft, please report it: " + text, json);
  }
}
