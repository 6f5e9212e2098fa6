// graft run, adapt, finetune.
#include <iostream>

#include "cli/engine/commands.h"
#include "graft/io/fields.h"
#include "graft/run/pipeline.h"
#include "graft/run/retention.h"

namespace graft::cli {
namespace {

void print_plan(const Json& plan) {
  fmt::print("{}\n{} training, {} validation, {} test examples, {} threads\n\n", plan["source"].get<std::string>(),
             plan["train"].get<int64_t>(), plan["validation"].get<int64_t>(), plan["test"].get<int64_t>(),
             plan["threads"].get<int64_t>());
  fmt::print("{:<14}{:>8}{:>16}{:>16}\n", "phase", "epochs", "parameters", "s per epoch");
  for (const auto& phase : plan["phases"])
    fmt::print("{:<14}{:>8}{:>16}{:>16.1f}\n", phase["phase"].get<std::string>(), phase["epochs"].get<int64_t>(),
               phase["trainable_parameters"].get<int64_t>(), phase["seconds_per_epoch"].get<double>());
  fmt::print(
      "\nstored activations {:.2f} GB, memory {:.2f} GB (weights and optimizer {:.2f} GB), time from {:.0f} s to "
      "{:.0f} s\n",
      plan["store_bytes"].get<double>() / 1e9, plan["peak_memory_bytes"].get<double>() / 1e9,
      plan["weights_and_optimizer_bytes"].get<double>() / 1e9, plan["seconds"]["at_least"].get<double>(),
      plan["seconds"]["at_most"].get<double>());
}

void print_result(const Json& result) {
  if (result.contains("adapt")) {
    const auto& adapted = result["adapt"];
    const bool perplexity = adapted["after"].contains("perplexity");
    const auto* measure = perplexity ? "perplexity" : "loss";
    fmt::print("adapted: held-out {} {:.{}f} -> {:.{}f}\n", perplexity ? "perplexity" : "reconstruction loss",
               adapted["before"][measure].get<double>(), perplexity ? 2 : 4, adapted["after"][measure].get<double>(),
               perplexity ? 2 : 4);
  }
  if (result.contains("adapt") && result["adapt"].contains("retained"))
    fmt::print("kept of the source: {}\n",
               run::retained_text(result["adapt"]["retained"]["after"], result["adapt"]["retained"]["source"]));
  if (result.contains("finetune")) {
    const auto& f = result["finetune"];
    if (f.contains("verdict"))
      fmt::print("verdict: {} {}\n", f["verdict"]["sentence"].get<std::string>(),
                 f["verdict"]["advice"].get<std::string>());
    fmt::print("\n{:<14}{:>22}{:>10}{:>12}\n", "phase", "validation " + f["metric"].get<std::string>(), "gain",
               "seconds");
    for (const auto& phase : f["phases"])
      fmt::print("{:<14}{:>22.4f}{:>10}{:>12.1f}\n", phase["phase"].get<std::string>(),
                 phase["validation"].get<double>(),
                 phase["phase"] == "head" ? "" : fmt::format("{:+.4f}", phase["gain"].get<double>()),
                 phase["seconds"].get<double>());
    if (result.contains("retained")) {
      const auto& source = result["retained"]["source"];
      fmt::print("\nkept of the source{}\n",
                 source.contains("value") ? fmt::format(" ({} of {} examples, at first {:.4f})",
                                                        source["metric"].get<std::string>(),
                                                        source["examples"].get<int64_t>(), source["value"].get<double>())
                                          : " (measured on the new examples, without labels)");
      for (const auto& phase : f["phases"])
        if (phase.contains("retained"))
          fmt::print("{:<14}{}\n", phase["phase"].get<std::string>(), run::retained_text(phase["retained"], source));
    }
  }
  if (result.contains("test")) {
    fmt::print("\ntest ({} examples):", result["test"]["examples"].get<int64_t>());
    for (const auto& item : result["test"].items())
      if (item.value().is_number_float()) fmt::print("  {} {:.4f}", item.key(), item.value().get<double>());
    fmt::print("\n");
  }
  if (result.contains("model")) fmt::print("model: {}\n", result["model"].get<std::string>());
}

}  // namespace

Json run_command(const Json& request) {
  const auto command = request.at("command").get<std::string>();
  const auto purpose = command == "adapt"      ? run::Purpose::adapt
                       : command == "finetune" ? run::Purpose::finetune
                                               : run::Purpose::run;
  const auto recipe = run::read_recipe(request.at("recipe"), {}, purpose);
  const bool json = request.value("json", false);
  report::Progress progress(request.value("quiet", false));
  if (request.value("dry_run", false)) {
    const auto plan = run::plan_recipe(recipe, purpose, progress);
    if (!json && purpose != run::Purpose::adapt) print_plan(plan);
    return plan;
  }
  const auto result = run::run_recipe(recipe, purpose, request.value("resume", false), progress);
  if (!json) print_result(result);
  return result;
}

}  // namespace graft::cli
