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
  const auto& data = selection["data"];
  if (!data["modality"].get<std::string>().empty())
    fmt::print("modality {}, domain {}: {}\n", data["modality"].get<std::string>(),
               data["domain"] == "" ? "not shown" : data["domain"].get<std::string>(),
               fmt::join(data["reasons"].get<std::vector<std::string>>(), "; "));
  fmt::print("\n{:<4}{:<36}{:>22}{:>24}{:>10}{:>10}{:>9}{:>12}{:>11}\n", "", "source", "combined (95 %)",
             "linear probe (95 %)", "LogME", "best in", "seconds", "s per epoch", "memory MB");
  int64_t place = 0;
  for (const auto& item : selection["ranking"]) {
    const auto& scores = item["scores"];
    const auto with_interval = [](double value, const Json& interval, const char* format) {
      return fmt::format(fmt::runtime(format), value, interval[0].get<double>(), interval[1].get<double>());
    };
    fmt::print("{:<4}{:<36}{:>22}{:>24}{:>10.4f}{:>9.0f}%{:>9.1f}{:>12.1f}{:>11.0f}\n",
               fmt::format("{}{}", ++place, item["source"] == selection["winner"] ? " *" : ""),
               cut(item["source"].get<std::string>(), 35),
               with_interval(item["combined"], item["combined_interval"], "{:+.2f} ({:+.2f}, {:+.2f})"),
               with_interval(scores["linear_probe"], item["probe_interval"], "{:.4f} ({:.3f}, {:.3f})"),
               scores["log_me"].get<double>(), 100 * item["best_share"].get<double>(), item["seconds"].get<double>(),
               item["seconds_per_epoch"].get<double>(), item["memory_bytes"].get<double>() / 1e6);
  }
  for (const auto& item : selection["dropped"])
    fmt::print("    {} dropped out: {}\n", item["source"].get<std::string>(), item["reason"].get<std::string>());
  fmt::print("\nMeasured on {} of {} training examples in {:.0f} s. {}\nGo on with: graft run --source {}\n",
             selection["examples"].get<int64_t>(), selection["training_examples"].get<int64_t>(),
             selection["seconds"].get<double>(), selection["sentence"].get<std::string>(),
             selection["pinned"].get<std::string>());
}

}  // namespace

Json select_command(const Json& request) {
  const auto recipe = run::read_recipe(request.at("recipe"), {}, run::Purpose::select);
  report::Progress progress(request.value("quiet", false));
  const TemporaryFolder temporary;
  auto selection = run::select_source(recipe, temporary.path, false, progress);
  for (const auto* key : {"place", "part"}) selection.erase(key);  // for a run
  if (!request.value("json", false)) print_ranking(selection);
  return selection;
}

}  // namespace graft::cli
