// graft run, adapt, finetune.
#include <iostream>

#include "cli/engine/commands.h"
#include "graft/io/fields.h"
#include "graft/run/pipeline.h"
#include "graft/run/retention.h"

namespace graft::cli {
namespace {

/// Where the source is measured first, its phases are known only then.
void print_candidates(const Json& plan) {
  double download = 0;
  fmt::print("{} sources will be measured on your data, and the run goes on with the best\n\n{:<66}{:>14}\n",
             plan["candidates"].size(), "source", "download MB");
  for (const auto& item : plan["candidates"]) {
    download += item["download_mb"].get<double>();
    fmt::print("{:<66}{:>14}\n", item["source"].get<std::string>(),
               item["here"].get<bool>() ? "here" : fmt::format("{:.0f}", item["download_mb"].get<double>()));
  }
  fmt::print(
      "\n{:.0f} MB to download. `graft select` measures alone; with the source that it names, --dry-run tells phases "
      "and time.\n",
      download);
}

void print_plan(const Json& plan) {
  if (plan.contains("candidates")) return print_candidates(plan);
  fmt::print("{}\n", plan["source"].get<std::string>());
  if (plan.contains("adapt"))
    for (const auto& item : plan["adapt"].items()) fmt::print("{} {}\n", item.value().dump(), item.key());
  if (plan.contains("train"))
    fmt::print("{} training, {} validation, {} test examples\n", plan["train"].get<int64_t>(),
               plan["validation"].get<int64_t>(), plan["test"].get<int64_t>());
  fmt::print("{}, {} threads\n\n", plan["device"].get<std::string>(), plan["threads"].get<int64_t>());
  const auto gigabytes = [](const Json& bytes) { return bytes.get<double>() / 1e9; };
  fmt::print("{:<14}{:>8}{:>16}{:>13}{:>10}{:>12}\n", "phase", "epochs", "parameters", "s per epoch", "s once",
             "memory GB");
  for (const auto& phase : plan["phases"])
    fmt::print(
        "{:<14}{:>8}{:>16}{:>13}{:>10}{:>12.2f}\n", phase["phase"].get<std::string>(), phase["epochs"].get<int64_t>(),
        phase["trainable_parameters"].get<int64_t>(),
        phase.contains("seconds_per_epoch") ? fmt::format("{:.1f}", phase["seconds_per_epoch"].get<double>()) : "",
        phase.contains("seconds_once") ? fmt::format("{:.1f}", phase["seconds_once"].get<double>()) : "",
        gigabytes(phase["memory"]["total"]));
  fmt::print("\n{}\n", plan["memory"]["sentence"].get<std::string>());
  fmt::print("disk: {:.2f} GB", gigabytes(plan["disk_bytes"]));
  for (const auto& item : plan["disk"].items()) fmt::print(", {} {:.2f}", item.key(), gigabytes(item.value()));
  fmt::print("\n");
  if (!plan.contains("seconds")) return;
  for (const auto& item : plan["seconds_beside_phases"].items())
    fmt::print("{}: {:.1f} s\n", item.key(), item.value().get<double>());
  fmt::print("time from {:.0f} s to {:.0f} s: phases end early when they bring no more\n",
             plan["seconds"]["at_least"].get<double>(), plan["seconds"]["at_most"].get<double>());
}

/// Target gain against source loss, the way between source and result, and what the terms took.
void print_retained(const Json& retained, const Json& finetune) {
  const auto metric = finetune["metric"].get<std::string>();
  const auto number = [](const Json& value) { return value.get<double>(); };
  if (retained.contains("curve") && retained["curve"].size() > 1) {
    fmt::print("\n{:<14}{:>6}{:>22}{:>10}{:>10}{:>10}\n", "phase", "epoch", "validation " + metric, "gain", "kept",
               "lost");
    for (const auto& point : retained["curve"])
      fmt::print("{:<14}{:>6}{:>22.4f}{:>+10.4f}{:>10.4f}{:>10.4f}\n", point["phase"].get<std::string>(),
                 point["epoch"].get<int64_t>(), number(point[metric]), number(point["gain"]), number(point["kept"]),
                 number(point["lost"]));
  }
  if (retained.contains("path")) {
    fmt::print("\n{:<14}{:>28}{:>10}\n", "way", "validation " + metric, "kept");
    for (const auto& point : retained["path"])
      fmt::print("{:<14.1f}{:>28.4f}{:>10.4f}{}\n", number(point["share"]), number(point[metric]),
                 run::kept(point["retained"]), point["share"] == retained["taken"]["share"] ? "  taken" : "");
    fmt::print("{}\n", retained["taken"]["reason"].get<std::string>());
    if (retained.contains("result"))
      fmt::print("result        {}\n", run::retained_text(retained["result"], retained["source"]));
  }
  std::vector<std::string> costs;
  if (finetune.contains("terms"))
    for (const auto& [name, term] : finetune["terms"].items())
      costs.push_back(fmt::format("{} {:.1f} s", name, number(term["seconds"])));
  if (retained.contains("prepared"))
    for (const auto& [name, part] : retained["prepared"].items())
      costs.push_back(fmt::format("{} {:.1f} s",
                                  name == "ewc"       ? "the source's Fisher"
                                  : name == "carried" ? "the result's Fisher"
                                                      : "the source's answers",
                                  number(part["seconds"])));
  if (!costs.empty()) fmt::print("\nkeeping took {}\n", fmt::join(costs, ", "));
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
    if (result.contains("retained") && result["retained"].contains("source")) {
      const auto& source = result["retained"]["source"];
      fmt::print("\nkept of the source{}\n",
                 source.contains("value")
                     ? fmt::format(" ({} of {} examples, at first {:.4f})", source["metric"].get<std::string>(),
                                   source["examples"].get<int64_t>(), source["value"].get<double>())
                     : " (measured on the new examples, without labels)");
      for (const auto& phase : f["phases"])
        if (phase.contains("retained"))
          fmt::print("{:<14}{}\n", phase["phase"].get<std::string>(), run::retained_text(phase["retained"], source));
    }
    if (result.contains("retained")) print_retained(result["retained"], f);
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
    if (!json) print_plan(plan);
    return plan;
  }
  const auto result = run::run_recipe(recipe, purpose, request.value("resume", false), progress);
  if (!json) print_result(result);
  return result;
}

}  // namespace graft::cli
