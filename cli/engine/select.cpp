// graft select: the candidates' ranking as a table, with what is known of its certainty.
#include <unistd.h>

#include "cli/engine/commands.h"
#include "graft/io/file.h"
#include "graft/run/selection.h"

namespace graft::cli {
namespace {

/// Stored activations of candidates that nobody asked to keep.
struct TemporaryFolder {
  TemporaryFolder() : path(std::filesystem::temp_directory_path() / fmt::format("graft-select-{}", ::getpid())) {}
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }
  std::filesystem::path path;
};

std::string cut(const std::string& text, size_t length) {
  return text.size() <= length ? text : "..." + text.substr(text.size() - length + 3);
}

void print_ranking(const Json& selection) {
  fmt::print("\n{:<4}{:<36}{:>9}{:>24}{:>10}{:>10}{:>12}{:>11}\n", "", "source", "combined", "linear probe (95 %)",
             "LogME", "best in", "s per epoch", "memory MB");
  int64_t place = 0;
  for (const auto& item : selection["ranking"]) {
    const auto& scores = item["scores"];
    fmt::print("{:<4}{:<36}{:>+9.2f}{:>24}{:>10.4f}{:>9.0f}%{:>12.1f}{:>11.0f}\n",
               fmt::format("{}{}", ++place, item["source"] == selection["winner"] ? " *" : ""),
               cut(item["source"].get<std::string>(), 35), item["combined"].get<double>(),
               fmt::format("{:.4f} ({:.3f}, {:.3f})", scores["linear_probe"].get<double>(),
                           item["probe_interval"][0].get<double>(), item["probe_interval"][1].get<double>()),
               scores["log_me"].get<double>(), 100 * item["best_share"].get<double>(),
               item["seconds_per_epoch"].get<double>(), item["memory_bytes"].get<double>() / 1e6);
  }
  for (const auto& item : selection["dropped"])
    fmt::print("    {} dropped out: {}\n", item["source"].get<std::string>(), item["reason"].get<std::string>());
  fmt::print("\nMeasured on {} examples in {:.0f} s. {}\nGo on with: graft run --source {}\n",
             selection["examples"].get<int64_t>(), selection["seconds"].get<double>(),
             selection["sentence"].get<std::string>(), selection["pinned"].get<std::string>());
}

}  // namespace

Json select_command(const Json& request) {
  const auto recipe = run::read_recipe(request.at("recipe"), {}, run::Purpose::select);
  report::Progress progress(request.value("quiet", false));
  const TemporaryFolder temporary;
  auto selection = run::select_source(recipe, temporary.path, false, progress);
  selection.erase("place");
  if (!request.value("json", false)) print_ranking(selection);
  return selection;
}

}  // namespace graft::cli
