// graft retain: what a tuned model lost of its source, and the Fisher that protects it.
#include "cli/engine/commands.h"
#include "graft/core/error.h"
#include "graft/data/dataset_files.h"
#include "graft/io/fields.h"
#include "graft/models/loading.h"
#include "graft/run/retention.h"

namespace graft::cli {
namespace {

constexpr uint64_t kSeed = 0;

retain::RetainOptions options_of(const Json& request, const models::Source& source) {
  retain::RetainOptions options;
  std::vector<std::string> mistakes;
  io::read_value(request.value("data_options", Json::object()), options.source_data, "data", mistakes);
  GRAFT_CHECK(usage, mistakes.empty(), "{}", listed(mistakes));
  options.source_data.task = models::task_of(source.config, *source.architecture).kind;
  options.corpus = request.value("corpus", std::string());
  GRAFT_CHECK(usage, options.corpus.empty() != request.value("data", std::string()).empty(),
              "give --data (labelled examples of what the model was trained for) or, of a language model, --corpus "
              "(general text): one of them.");
  options.examples = options.ewc.examples = request.at("examples");
  options.curve = false;  // nothing is chosen: all examples report
  return options;
}

/// A folder or an archive of splits; else a table of one.
bool is_place(const std::string& file) { return std::filesystem::is_directory(file) || !data::is_table(file); }

Json measure(const Json& request) {
  auto before = models::Source::open(request.at("before").get<std::string>());
  const auto after = models::Source::open(request.at("after").get<std::string>());
  GRAFT_CHECK(model, before.architecture == after.architecture,
              "{} is of the family {}, {} of {}: one cannot have been made from the other.", before.folder.string(),
              before.architecture->model_type, after.folder.string(), after.architecture->model_type);
  auto options = options_of(request, before);
  if (options.corpus.empty()) {
    const auto file = request.at("data").get<std::string>();
    (is_place(file) ? options.source_data.path : options.source_data.test) = file;
  }
  report::Progress progress(request.value("quiet", false));
  run::SourceKnowledge knowledge(std::move(before), options, request.at("max_length"), {}, kSeed, progress);
  if (options.corpus.empty()) knowledge.compare_on_source_data();
  const auto task = models::task_of(after.config, *after.architecture);
  const auto tuned = models::load(after, task, kSeed).model;
  const bool same_head = task.kind == knowledge.task().kind &&
                         (!options.corpus.empty() || models::label_names(after.config) == knowledge.label_names());
  Json answer{{"before", knowledge.original()}, {"after", knowledge.measure(*tuned, same_head)}};
  if (!request.value("json", false))
    fmt::print("before  {}\nafter   {}\n", run::retained_text(answer["before"], answer["before"]),
               run::retained_text(answer["after"], answer["before"]));
  return answer;
}

Json fisher(const Json& request) {
  auto source = models::Source::open(request.at("model").get<std::string>());
  auto options = options_of(request, source);
  options.ewc.strength = 1;
  options.ewc.labels = request.at("labels");
  if (options.corpus.empty()) {
    const auto file = request.at("data").get<std::string>();
    (is_place(file) ? options.source_data.path : options.source_data.train) = file;
  }
  report::Progress progress(request.value("quiet", false));
  run::SourceKnowledge knowledge(std::move(source), options, request.at("max_length"), {}, kSeed, progress);
  auto anchors = knowledge.fisher(nullptr);
  if (const auto earlier = request.value("add", std::string()); !earlier.empty())
    anchors = retain::accumulated(retain::read_anchors(earlier), anchors, request.at("decay"));
  const auto out = request.at("out").get<std::string>();
  retain::write_anchors(out, anchors);
  Json answer{{"fisher", out}, {"parameters", anchors.of.size()}, {"domains", anchors.domains}};
  if (!request.value("json", false))
    fmt::print("{}: {} parameters, {} domains\n", out, anchors.of.size(), anchors.domains.size());
  return answer;
}

}  // namespace

Json retain_command(const Json& request) {
  return request.at("action") == "measure" ? measure(request) : fisher(request);
}

}  // namespace graft::cli
