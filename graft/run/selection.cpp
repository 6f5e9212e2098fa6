#include "graft/run/selection.h"

#include <ATen/Parallel.h>

#include <chrono>

#include "graft/core/error.h"
#include "graft/core/interrupt.h"
#include "graft/core/process.h"
#include "graft/core/random.h"
#include "graft/core/threads.h"
#include "graft/finetune/schedule.h"
#include "graft/models/lora.h"
#include "graft/models/weight_type.h"
#include "graft/run/find_source.h"
#include "graft/run/task_inputs.h"
#include "graft/select/fetch.h"
#include "graft/select/frozen_features.h"
#include "graft/select/modality.h"
#include "graft/select/ranking.h"

namespace graft::run {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

/// The list's sources that fit the data, smallest first; those behind a gate only when they are here.
std::vector<std::string> listed_candidates(const Recipe& recipe, const select::DataFinding& finding,
                                           report::Progress& progress) {
  const auto& domain = recipe.select.domain.empty() ? finding.domain : recipe.select.domain;
  for (const auto& reason : finding.reasons) progress.line(reason);
  progress.line(fmt::format("modality {}, domain {}", finding.modality, domain.empty() ? "not shown" : domain));
  auto lists = select::user_catalogues();
  if (!recipe.sources.empty()) lists.push_back(recipe.sources);
  const auto all = select::catalogue(lists);
  const auto rows = select::filtered(all, {finding.modality, domain, recipe.select.licence, recipe.select.max_mb});
  const auto settings = hub::Settings::from_environment();
  std::vector<std::string> names, not_yet;
  for (const auto& row : rows) {
    if (std::find(names.begin(), names.end(), row.id) != names.end()) continue;
    if (!row.runs()) not_yet.push_back(row.id);
    else if (row.gated && !select::local_source(settings, row.id, all))
      progress.line(fmt::format("{} is left out: its licence must be accepted first (graft pull {})", row.id, row.id));
    else names.push_back(row.id);
  }
  GRAFT_CHECK(usage, !names.empty(),
              "no source of the list that fits ({}, {}) can be used: {} do not run in graft yet. Name candidates "
              "yourself: --candidate FOLDER.",
              finding.modality, domain.empty() ? "any domain" : domain, listed(not_yet, 5));
  return names;
}

/// A candidate, opened as the head phase of a run opens its source, so that what is stored here is what it reads.
struct Opened {
  Opened(const Recipe& recipe, const FoundSource& origin) : source(models::Source::open(origin.folder)) {
    source.name = origin.name;
    kind = task_inputs(source, recipe.max_length, recipe.images, recipe.language);
    kind->settle(source);
  }

  void load(const Recipe& recipe, const data::Dataset& dataset) {
    task = {dataset.task, dataset.task == "regression" ? 1 : static_cast<int64_t>(dataset.label_names.size())};
    loaded = models::load(source, task, seed_of(recipe.seed, {"finetune", "head"}),
                          models::label_names(source.config) == dataset.label_names,
                          models::weight_type_named(recipe.train.weights));
    if (recipe.lora.rank > 0)
      models::attach_lora(*loaded.model, recipe.lora, seed_of(recipe.seed, {"finetune", "lora"}));
    loaded.model->unfreeze_only({"head"});
    loaded.model->eval();
  }

  models::Source source;
  std::unique_ptr<TaskInputs> kind;
  models::Task task;
  models::Loaded loaded;
};

class Selection {
 public:
  Selection(const Recipe& recipe, fs::path folder, bool ahead, report::Progress& progress)
      : recipe_(recipe), folder_(std::move(folder)), ahead_(ahead), progress_(progress) {}

  Json run() {
    const auto started = Clock::now();
    GRAFT_CHECK(usage, recipe_.data.task != "causal_lm",
                "data.task causal_lm has no labels that sources could be measured by; name the source yourself.");
    const auto finding = look_at_data();
    modality_ = finding.modality;
    const auto names =
        recipe_.select.candidates.empty() ? listed_candidates(recipe_, finding, progress_) : recipe_.select.candidates;
    progress_.title(
        fmt::format("Measuring {} {} on your data", names.size(), names.size() == 1 ? "source" : "sources"));
    for (size_t i = 0; i < names.size(); ++i) {
      stop_if_interrupted();
      try {
        measure(names[i], i);
      } catch (const Error& e) {
        if (e.kind == Kind::disk || every_candidates_) throw;
        drop(names[i], e.what());
      } catch (const c10::Error& e) {  // a model that does not fit these inputs
        drop(names[i], e.what_without_backtrace());
      }
    }
    if (measured_.empty()) {
      std::vector<std::string> reasons;
      for (const auto& item : dropped_)
        reasons.push_back(item["source"].get<std::string>() + ": " + item["reason"].get<std::string>());
      fail(Kind::model, "none of the {} candidates could be measured.\n  {}", names.size(), fmt::join(reasons, "\n  "));
    }
    auto ranked = select::rank(measured_, seed_of(recipe_.seed, {"select", "bootstrap"}));
    if (recipe_.select.halving) halve(ranked);
    progress_.line(ranked.sentence);
    return answer(ranked, seconds_since(started));
  }

 private:
  struct Facts {
    FoundSource origin;
    size_t place;  // among the candidates' names
    Json json;
    Json rounds = Json::array();
  };

  /// Where the candidates are named, data that do not show what they are (an archive) are left to the candidates.
  select::DataFinding look_at_data() const {
    const fs::path data = recipe_.data.path.empty() ? recipe_.data.train : recipe_.data.path;
    GRAFT_CHECK(data, fs::exists(data), "{}: there is no such file or folder. Correct the path of the data.",
                data.string());
    if (recipe_.data.task == "tokens") return {"text", "", {"labels on words"}};
    try {
      return select::find_modality(data);
    } catch (const Error&) {
      if (recipe_.select.candidates.empty()) throw;
      return {};
    }
  }

  void drop(const std::string& name, const std::string& reason) {
    dropped_.push_back({{"source", name}, {"reason", reason}});
    progress_.line(fmt::format("{} drops out: {}", name, reason));
  }

  fs::path folder_of(size_t place) const {
    return recipe_.features.folder.empty() ? folder_ / std::to_string(place) : fs::path(recipe_.features.folder);
  }

  /// Texts are read once for all candidates.
  data::Dataset read(Opened& opened) {
    const auto other = opened.kind->of_images() ? "text" : "image";
    GRAFT_CHECK(model, modality_ != other, "it takes {}s, and these data are {}s",
                opened.kind->of_images() ? "image" : "text", other);
    if (!opened.kind->of_images() && texts_) return *texts_;
    every_candidates_ = !modality_.empty();  // what is wrong with the data is wrong for all
    auto options = recipe_.data;
    const auto most = recipe_.select.sample;
    options.max_train = options.max_train > 0 ? std::min(options.max_train, most) : most;
    auto dataset = opened.kind->read(options, recipe_.seed, {});
    task_ = dataset.task;
    if (task_ == "classification") select::expect_enough(dataset.train.labels, dataset.label_names);
    every_candidates_ = false;
    if (!opened.kind->of_images()) texts_ = dataset;
    return dataset;
  }

  Prepared prepare(Opened& opened, data::Examples& examples, const std::string& split) {
    Wanted wanted{.split = split, .task = task_};
    if (recipe_.data.bad_rows == "skip") wanted.bad_rows = data::BadRows::skip;
    if (split == "training") wanted.training_seed = recipe_.seed;
    wanted.progress = [&](int64_t done, int64_t total) { progress_.step("reading, " + split, done, total); };
    return opened.kind->prepare(*opened.loaded.model, examples, wanted);
  }

  struct Ready {
    std::shared_ptr<Prepared> split;
    data::Examples examples;  // without those that turned out to be unusable
  };

  /// Images are decoded once for all candidates that prepare them alike.
  Ready training_split(Opened& opened, data::Dataset& dataset) {
    const auto settings = opened.kind->settings(*opened.loaded.model).dump();
    if (const auto found = images_.find(settings); opened.kind->of_images() && found != images_.end())
      return found->second;
    auto split = std::make_shared<Prepared>(prepare(opened, dataset.train, "training"));
    Ready ready{split, split->repeated ? *split->repeated : dataset.train};
    if (opened.kind->of_images()) images_[settings] = ready;
    return ready;
  }

  /// Stores what the head reads, and `ahead` what the coming unfreezings will. Returns seconds, 0 when all was there.
  double capture(models::Model& model, const features::Inputs& inputs, features::Feed& feed, const fs::path& folder,
                 const std::string& name) {
    double seconds = 0;
    for (const auto& chain : model.chains) {
      const auto end = static_cast<int64_t>(chain.blocks.size());
      std::set<int64_t> boundaries{end};
      if (ahead_) boundaries.merge(finetune::boundaries_ahead(model, chain.name, recipe_.finetune, recipe_.features));
      const std::vector<int64_t> wanted(boundaries.begin(), boundaries.end());
      const auto captured = features::capture(
          model, chain.name, wanted, model.head->reads(), inputs, folder, recipe_.features,
          [&](int64_t done, int64_t total) { progress_.step("computing features, " + name, done, total); });
      for (size_t i = 0; i < wanted.size(); ++i)
        if (captured.stores[i]) feed.use(chain.name, wanted[i], *captured.stores[i]);
      seconds += captured.seconds;
    }
    return seconds;
  }

  /// Seconds that the frozen chains take for an example, from batches of about a second.
  double seconds_per_example(models::Model& model, const features::Inputs& inputs) {
    const torch::NoGradGuard no_grad;
    const auto batches = features::batches_by_length(inputs, recipe_.features.capture_tokens);
    int64_t examples = 0;
    const auto started = Clock::now();
    for (size_t i = 0; i < batches.size() && seconds_since(started) < 1; i += std::max<size_t>(1, batches.size() / 8)) {
      for (const auto& chain : model.chains)
        if (chain.upstream.empty())
          model.forward(chain.name, 0, static_cast<int64_t>(chain.blocks.size()), inputs.batch(chain.name, batches[i]),
                        model.head->reads());
      examples += static_cast<int64_t>(batches[i].size());
    }
    return seconds_since(started) / static_cast<double>(examples);
  }

  void measure(const std::string& name, size_t place) {
    const auto started = Clock::now();
    reset_peak_memory();
    const auto origin = find_source(name, recipe_.sources, progress_);
    Opened opened(recipe_, origin);
    auto dataset = read(opened);
    opened.load(recipe_, dataset);
    auto& model = *opened.loaded.model;
    const auto [train, examples] = training_split(opened, dataset);
    const auto& inputs = *train->inputs;
    features::Feed feed(model, inputs);
    const auto captured = capture(model, inputs, feed, folder_of(place), origin.name);
    const auto n = inputs.size();
    const double per_example = captured > 0 ? captured / static_cast<double>(n) : seconds_per_example(model, inputs);
    const auto classifier = own_classifier(opened.source, model);
    const auto features = select::frozen_features(model, feed, task_, dataset.label_names, examples, train->alignment,
                                                  classifier ? classifier->head.get() : nullptr, recipe_.select.sample,
                                                  seed_of(recipe_.seed, {"select", "words"}));
    const auto scoring = Clock::now();
    auto measured = select::measure(features.values, features.targets, features.probabilities,
                                    seed_of(recipe_.seed, {"select", "sample"}));
    GRAFT_CHECK(data, measured_.empty() || measured_.front().measured.probe.size(0) == measured.probe.size(0),
                "{} of the examples can be used by this source and {} by the others, so they cannot be compared",
                measured.probe.size(0), measured_.front().measured.probe.size(0));
    examples_ = n;
    // A step of training costs a pass forward and about two backward.
    const double per_epoch = 3 * per_example * static_cast<double>(n);
    int64_t parameters = 0;
    for (const auto& item : model.parameters_by_key()) parameters += item.value().numel();
    progress_.line(fmt::format("{}: linear probe {:.4f}, LogME {:.4f} ({} dimensions, {:.1f} s)", origin.name,
                               measured.scores.at("linear_probe"), measured.scores.at("log_me"),
                               features.values.size(1), seconds_since(started)));
    facts_.push_back({origin,
                      place,
                      {{"source", origin.name},
                       {"pinned", origin.pinned},
                       {"scores", measured.scores},
                       {"parameters", parameters},
                       {"dimensions", features.values.size(1)},
                       {"seconds", seconds_since(started)},
                       {"seconds_capture", captured},
                       {"seconds_scores", seconds_since(scoring)},
                       {"seconds_per_epoch", per_epoch},
                       {"memory_bytes", peak_memory()}}});
    measured_.push_back({origin.name, std::move(measured), per_epoch});
  }

  /// The source with the head that its file has, when that is a classifier which reads where the new head reads.
  std::shared_ptr<models::Model> own_classifier(const models::Source& source, const models::Model& model) const {
    if (task_ != "classification") return nullptr;
    const auto task = models::task_of(source.config, *source.architecture);
    if (task.kind != "classification" || task.num_labels < 2) return nullptr;
    const auto own = models::load(source, task, 0);
    if (!own.report.fresh.empty()) return nullptr;
    const auto reads = own.model->head->reads();
    if (reads.where != model.head->reads().where || reads.where == models::Reads::Where::listed) return nullptr;
    own.model->eval();
    return own.model;
  }

  // --- successive halving (Jamieson and Talwalkar 2016) ----------------------------------------------------------

  /// Validation metric of a head that learned `epochs` on the stored features.
  double head_metric(const Facts& facts, int64_t epochs, std::string& metric) {
    Opened opened(recipe_, facts.origin);
    auto dataset = read(opened);
    opened.load(recipe_, dataset);
    auto& model = *opened.loaded.model;
    const auto [train, examples] = training_split(opened, dataset);
    const auto validation = prepare(opened, dataset.validation, "validation");
    features::Feed feed(model, *train->inputs), judged(model, *validation.inputs);
    capture(model, *train->inputs, feed, folder_of(facts.place), facts.origin.name);
    capture(model, *validation.inputs, judged, folder_of(facts.place), facts.origin.name);
    const auto stream = train::task_stream(model, feed, task_, dataset.label_names, examples, train->alignment);
    const auto judge =
        train::task_stream(model, judged, task_, dataset.label_names, dataset.validation, validation.alignment);
    metric = recipe_.finetune.metric.empty()
                 ? train::default_metric_of(model, feed, task_, dataset.label_names, examples)
                 : recipe_.finetune.metric;
    train::PhasePlan plan;
    plan.stage = "select";
    plan.name = "halving";
    plan.trainable = {"head"};
    plan.learning_rates["head"] = 1e-3;
    plan.weight_decay = recipe_.train.weight_decay;
    plan.metric = metric;
    plan.epochs = epochs;
    train::Phase phase(model, plan, recipe_.train, *stream, *judge, recipe_.seed);
    phase.run({});
    return phase.state().best;
  }

  /// The order of the survivors is that of the last round that they were in.
  void halve(select::Ranked& ranked) {
    auto alive = ranked.order;
    for (int64_t epochs = 2; alive.size() > 1; epochs *= 2) {
      std::vector<std::pair<double, size_t>> results;
      for (const auto i : alive) {
        stop_if_interrupted();
        std::string metric;
        const double value = head_metric(facts_[i], epochs, metric);
        facts_[i].rounds.push_back({{"epochs", epochs}, {"metric", metric}, {"value", value}});
        progress_.line(
            fmt::format("{}: head of {} epochs, validation {} {:.4f}", facts_[i].origin.name, epochs, metric, value));
        results.push_back({train::smaller_is_better(metric) ? value : -value, i});
      }
      std::stable_sort(results.begin(), results.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
      for (size_t i = 0; i < results.size(); ++i) ranked.order[i] = alive[i] = results[i].second;
      alive.resize((alive.size() + 1) / 2);
      if (results.size() == 2) break;
    }
    const auto best = ranked.order.front();
    ranked.sentence = best == ranked.winner
                          ? fmt::format("{} is taken: the scores and the trained heads agree.", measured_[best].name)
                          : fmt::format("{} is taken: its head learns best; by the scores it would be {}.",
                                        measured_[best].name, measured_[ranked.winner].name);
    ranked.winner = best;
  }

  Json answer(const select::Ranked& ranked, double seconds) const {
    Json ranking = Json::array();
    for (const auto i : ranked.order) {
      auto item = facts_[i].json;
      item["combined"] = ranked.combined[i];
      item["probe_interval"] = {ranked.lower[i], ranked.upper[i]};
      item["best_share"] = ranked.best_share[i];
      if (!facts_[i].rounds.empty()) item["rounds"] = facts_[i].rounds;
      ranking.push_back(item);
    }
    Json best_by = Json::object();
    for (const auto& [score, i] : ranked.best_by) best_by[score] = measured_[i].name;
    const auto& winner = facts_[ranked.winner];
    return {{"winner", winner.origin.name},
            {"pinned", winner.origin.pinned},
            {"place", winner.place},
            {"sentence", ranked.sentence},
            {"task", task_},
            {"examples", examples_},
            {"ranking", ranking},
            {"best_by", best_by},
            {"dropped", dropped_},
            {"seconds", seconds}};
  }

  const Recipe& recipe_;
  fs::path folder_;
  bool ahead_;
  report::Progress& progress_;
  std::optional<data::Dataset> texts_;
  std::map<std::string, Ready> images_;  // by settings of their preparation
  std::string task_, modality_;
  bool every_candidates_ = false;
  int64_t examples_ = 0;
  std::vector<select::Candidate> measured_;
  std::vector<Facts> facts_;
  Json dropped_ = Json::array();
};

}  // namespace

Json select_source(const Recipe& recipe, const fs::path& folder, bool ahead, report::Progress& progress) {
  at::set_num_threads(static_cast<int>(recipe.train.threads > 0 ? recipe.train.threads : available_cores()));
  return Selection(recipe, folder, ahead, progress).run();
}

}  // namespace graft::run
