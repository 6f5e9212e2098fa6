#include "graft/run/selection.h"

#include <ATen/Parallel.h>

#include <chrono>
#include <new>
#include <set>

#include "graft/core/error.h"
#include "graft/core/interrupt.h"
#include "graft/core/process.h"
#include "graft/core/random.h"
#include "graft/finetune/schedule.h"
#include "graft/hub/http.h"
#include "graft/models/lora.h"
#include "graft/models/weight_type.h"
#include "graft/run/find_source.h"
#include "graft/run/image_task.h"
#include "graft/run/machine.h"
#include "graft/run/task_inputs.h"
#include "graft/select/fetch.h"
#include "graft/select/frozen_features.h"
#include "graft/select/modality.h"
#include "graft/select/ranking.h"
#include "graft/select/sample.h"

namespace graft::run {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

/// Of the list, with the rows of users.
std::vector<select::CatalogueRow> known_sources(const Recipe& recipe) {
  auto lists = select::user_catalogues();
  if (!recipe.sources.empty()) lists.push_back(recipe.sources);
  return select::catalogue(lists);
}

/// "microsoft/resnet-50 (102 MB)", those that graft runs and that ask nobody's leave: of the modality when there are such
/// (of its parts, for multimodal data), the domain's first, then the smallest.
std::string nearest_that_run(std::vector<select::CatalogueRow> rows, const std::string& modality,
                             const std::string& domain) {
  std::erase_if(rows, [](const auto& row) { return !row.runs() || row.gated; });
  if (std::any_of(rows.begin(), rows.end(), [&](const auto& row) { return row.modality == modality; }))
    std::erase_if(rows, [&](const auto& row) { return row.modality != modality; });
  std::stable_sort(rows.begin(), rows.end(), [&](const auto& a, const auto& b) {
    return std::pair(a.domain != domain, a.download_mb) < std::pair(b.domain != domain, b.download_mb);
  });
  std::vector<std::string> near;
  for (const auto& row : rows) near.push_back(fmt::format("{} ({}, {:.0f} MB)", row.id, row.modality, row.download_mb));
  return listed(near, 5);
}

/// The list's sources that fit the data; those behind a gate only when they are here.
std::vector<std::string> listed_candidates(const Recipe& recipe, const std::string& modality, const std::string& domain,
                                           report::Progress& progress) {
  const auto all = known_sources(recipe);
  const auto rows = select::filtered(all, {modality, domain, recipe.select.licence, recipe.select.max_mb});
  const auto settings = hub::Settings::from_environment();
  std::vector<std::string> names, not_yet, gated;
  for (const auto& row : rows) {
    if (std::find(names.begin(), names.end(), row.id) != names.end()) continue;
    if (!row.runs()) not_yet.push_back(row.id);
    else if (row.gated && !select::local_source(settings, row.id, all)) gated.push_back(row.id);
    else names.push_back(row.id);
  }
  for (const auto& id : gated)
    progress.line(fmt::format("{} is left out: its licence must be accepted first ({}/{}, then graft pull {})", id,
                              settings.endpoint, id, id));
  if (!names.empty()) return names;
  const auto what = fmt::format("{}, {}", modality, domain.empty() ? "any domain" : domain);
  const auto near = nearest_that_run(all, modality, domain);
  GRAFT_CHECK(
      usage, gated.empty(),
      "only sources behind a gate fit these data ({}): {}. Accept the licence of one on its page at {}, fetch it "
      "by graft pull ID, and select again; or name a candidate yourself by --candidate: nearest that run are {}.",
      what, listed(gated, 5), settings.endpoint, near);
  fail(Kind::usage,
       "no source of the list that fits ({}) can be used: {} do not run in graft yet. Nearest that run are {}: name "
       "them "
       "as candidates, --candidate ID, or a folder of your own.",
       what, listed(not_yet, 5), near);
}

/// What is wrong with the data is wrong for every candidate.
struct WrongForAll : Error {
  explicit WrongForAll(const Error& e) : Error(e.kind, e.what()) {}
};

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
      models::attach_lora(*loaded.model, recipe.lora, seed_of(recipe.seed, {"finetune", "lora"}), loaded.report.fresh);
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
    find_candidates();
    progress_.title(
        fmt::format("Measuring {} {} on your data", names_.size(), names_.size() == 1 ? "source" : "sources"));
    fetch();
    if (recipe_.select.seconds > 0) fit_the_budget();
    for (size_t i = 0; i < names_.size(); ++i) attempt(i, [&] { measure(i); });
    if (task_ == "tokens") score_common_words();
    if (measured_.empty()) fail_empty_handed();
    auto ranked = select::rank(measured_, seed_of(recipe_.seed, {"select", "bootstrap"}));
    if (recipe_.select.halving) halve(ranked);
    progress_.line(ranked.sentence);
    return answer(ranked, seconds_since(started));
  }

  /// The candidates with what is known of them, without fetching or reading any.
  Json plan() {
    find_candidates();
    const auto all = known_sources(recipe_);
    const auto settings = hub::Settings::from_environment();
    Json list = Json::array();
    for (const auto& name : names_) {
      std::error_code ignored;
      const bool here = fs::exists(name, ignored) || (hub::is_repository_id(name.substr(0, name.find('@'))) &&
                                                      select::local_source(settings, name, all));
      list.push_back({{"source", name}, {"here", here}, {"download_mb", here ? 0 : megabytes(all, name)}});
    }
    return {{"candidates", list}, {"data", data_json()}};
  }

 private:
  struct Facts {
    FoundSource origin;
    size_t place;  // among the candidates' names
    Json json;
    double seconds_per_epoch = 0;
    std::string inputs;  // hash of what was measured; "" where examples were skipped or repeated
    Json rounds = Json::array();
  };

  // --- who competes ----------------------------------------------------------------------------------------------

  void find_candidates() {
    GRAFT_CHECK(usage, recipe_.data.task != "causal_lm",
                "data.task causal_lm has no labels that sources could be measured by; name the source yourself.");
    finding_ = look_at_data();
    modality_ = finding_.modality;
    if (!recipe_.select.domain.empty()) {
      finding_.domain = recipe_.select.domain;
      finding_.reasons.push_back("the domain is given (select.domain)");
    }
    for (const auto& reason : finding_.reasons) progress_.line(reason);
    if (!modality_.empty())
      progress_.line(
          fmt::format("modality {}, domain {}", modality_, finding_.domain.empty() ? "not shown" : finding_.domain));
    names_ = recipe_.select.candidates.empty() ? listed_candidates(recipe_, modality_, finding_.domain, progress_)
                                               : recipe_.select.candidates;
    origins_.resize(names_.size());
    opened_.resize(names_.size());
  }

  /// Where the candidates are named, data that do not show what they are are left to the candidates.
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

  static double megabytes(const std::vector<select::CatalogueRow>& rows, const std::string& name) {
    const auto id = name.substr(0, name.find('@'));
    const auto row = std::find_if(rows.begin(), rows.end(), [&](const auto& r) { return r.id == id; });
    return row == rows.end() ? 0 : row->download_mb;
  }

  /// All candidates are brought here first. Where nobody answers, only the first waits for it.
  void fetch() {
    for (size_t i = 0; i < names_.size(); ++i)
      attempt(i, [&] {
        try {
          origins_[i] = find_source(names_[i], recipe_.sources, progress_, away_.empty());
        } catch (const hub::Unreachable& e) {
          if (away_.empty()) unreachable_ = e.what();
          away_.push_back(names_[i]);
          throw;
        }
      });
  }

  /// Runs a step of a candidate; one that fails drops out with its reason and the others go on.
  template <class Step>
  void attempt(size_t place, Step&& step) {
    stop_if_interrupted();
    if (dropped_places_.contains(place)) return;
    const auto& name = names_[place];
    constexpr const char* kMemory = "it needs more memory than this machine has free";
    try {
      step();
      return;
    } catch (const WrongForAll&) {
      throw;
    } catch (const Error& e) {
      if (e.kind == Kind::disk) throw;
      drop(name, e.what());
    } catch (const std::bad_alloc&) {
      drop(name, kMemory);
    } catch (const c10::Error& e) {  // a model that does not fit these inputs
      const std::string text = e.what_without_backtrace();
      const bool memory = text.find("allocate memory") != std::string::npos || text.find("out of memory") != text.npos;
      drop(name, memory ? kMemory : text);
    }
    dropped_places_.insert(place);
    opened_[place].reset();
  }

  void drop(const std::string& name, const std::string& reason) {
    dropped_.push_back({{"source", name}, {"reason", reason}});
    progress_.line(fmt::format("{} drops out: {}", name, reason));
  }

  [[noreturn]] void fail_empty_handed() const {
    std::vector<std::string> reasons, needed;
    for (const auto& item : dropped_)
      reasons.push_back(item["source"].get<std::string>() + ": " + item["reason"].get<std::string>());
    const auto text = fmt::format("none of the {} candidates could be measured.", names_.size());
    if (away_.empty()) fail(Kind::model, "{}\n  {}", text, fmt::join(reasons, "\n  "));
    const auto all = known_sources(recipe_);
    for (const auto& name : away_) {
      const auto size = megabytes(all, name);
      needed.push_back(size > 0 ? fmt::format("{} ({:.0f} MB)", name, size) : name);
    }
    const auto settings = hub::Settings::from_environment();
    std::erase_if(reasons, [&](const std::string& reason) {
      return std::any_of(away_.begin(), away_.end(), [&](const auto& name) { return reason.starts_with(name + ": "); });
    });
    const auto here = hub::whats_here(settings);
    throw hub::Unreachable(
        fmt::format("{} {}{}{}\nNeeded would be one of: {}. A source that is here can be named by --candidate.", text,
                    unreachable_, unreachable_.find(here) == std::string::npos ? " " + here + "." : "",
                    reasons.empty() ? "" : fmt::format("\n  {}", fmt::join(reasons, "\n  ")), listed(needed, 20)));
  }

  // --- the data, read and decoded once for all ----------------------------------------------------------------------

  Opened& open(size_t place) {
    if (!opened_[place]) opened_[place] = std::make_unique<Opened>(recipe_, origins_[place]);
    return *opened_[place];
  }

  template <class Step>
  auto of_the_data(Step&& step) {
    try {
      return step();
    } catch (const Error& e) {
      if (modality_.empty()) throw;  // perhaps this candidate is of the wrong kind
      throw WrongForAll(e);
    }
  }

  /// The whole training split, and the others, as a run would read them.
  const data::Dataset& everything(Opened& opened) {
    const bool images = opened.kind->of_images();
    const auto *own = images ? "image" : "text", *other = images ? "text" : "image";
    GRAFT_CHECK(model, modality_ != other, "it takes {}s, and these data are {}s", own, other);
    auto& dataset = read_[images];
    if (!dataset) {
      dataset = of_the_data([&] {
        auto read = opened.kind->read(recipe_.data, recipe_.seed, {});
        select::expect_enough(read.train, read.task, read.label_names);
        return read;
      });
      task_ = dataset->task;
    }
    if (auto* task = dynamic_cast<ImageTask*>(opened.kind.get())) {
      if (!image_files_) image_files_ = task->image_files();
      task->use(image_files_);
    }
    return *dataset;
  }

  /// With the training examples that candidates are measured on.
  data::Dataset sampled(const data::Dataset& all, int64_t count) {
    data::Dataset dataset{.task = all.task, .label_names = all.label_names, .of_images = all.of_images};
    if (recipe_.select.halving) dataset.validation = all.validation;
    const auto labels = static_cast<int64_t>(all.label_names.size());
    dataset.train = data::take(all.train, select::sample_examples(all.train, all.task, labels, count, recipe_.seed));
    return dataset;
  }

  const data::Dataset& dataset(Opened& opened) {
    const auto& all = everything(opened);
    auto& some = sampled_[opened.kind->of_images()];
    if (!some) {
      some = sampled(all, sample_);
      training_examples_ = all.train.size();
    }
    return *some;
  }

  Wanted wanted(const std::string& split) {
    Wanted wanted{.split = split, .task = task_};
    if (recipe_.data.bad_rows == "skip") wanted.bad_rows = data::BadRows::skip;
    if (split == "training") wanted.training_seed = recipe_.seed;
    wanted.progress = [this, split](int64_t done, int64_t total) { progress_.step("reading, " + split, done, total); };
    return wanted;
  }

  struct Ready {
    std::shared_ptr<Prepared> split;
    data::Examples examples;  // without those that turned out to be unusable
  };

  /// Images are decoded once for all candidates, whatever their preparations.
  Ready ready(Opened& opened, const std::string& split) {
    const auto& all = dataset(opened);
    auto examples = split == "training" ? all.train : all.validation;
    const auto& model = *opened.loaded.model;
    if (!opened.kind->of_images()) {
      auto prepared = std::make_shared<Prepared>(opened.kind->prepare(model, examples, wanted(split)));
      return {prepared, std::move(examples)};
    }
    const auto key = [&](const TaskInputs& kind) { return split + " " + kind.settings(model).dump(); };
    if (!images_.contains(key(*opened.kind))) {
      std::vector<ImageTask*> tasks{&dynamic_cast<ImageTask&>(*opened.kind)};
      std::set<std::string> keys{key(*opened.kind)};
      for (size_t i = 0; i < names_.size(); ++i) {
        if (dropped_places_.contains(i) || done_.contains(i)) continue;
        try {
          auto* task = dynamic_cast<ImageTask*>(open(i).kind.get());
          if (task && !images_.contains(key(*task)) && keys.insert(key(*task)).second) tasks.push_back(task);
        } catch (const std::exception&) {  // it says so when its turn comes
        }
      }
      auto prepared = of_the_data([&] { return ImageTask::prepare_all(model, tasks, examples, wanted(split)); });
      if (split == "training") {
        of_the_data([&] {
          select::expect_enough(examples, task_, all.label_names);
          return 0;
        });
      }
      for (size_t i = 0; i < tasks.size(); ++i) {
        images_decoded_ += prepared[i].decoded;
        auto shared = std::make_shared<Prepared>(std::move(prepared[i]));
        images_[key(*tasks[i])] = {shared, shared->repeated ? *shared->repeated : examples};
      }
    }
    return images_.at(key(*opened.kind));
  }

  /// Stores what the head reads and, `to_measure`, the means that are measured; ahead_ what the coming unfreezings will
  /// read. Returns seconds, 0 when all was there.
  double capture(models::Model& model, const features::Inputs& inputs, features::Feed& feed, const fs::path& folder,
                 const std::string& name, bool to_measure) {
    double seconds = 0;
    for (const auto& chain : model.chains) {
      const auto end = static_cast<int64_t>(chain.blocks.size());
      std::set<int64_t> boundaries{end};
      if (ahead_) boundaries.merge(finetune::boundaries_ahead(model, chain.name, recipe_.finetune, recipe_.features));
      const std::vector<int64_t> wanted(boundaries.begin(), boundaries.end());
      std::vector<int64_t> means;
      if (const auto boundary = select::mean_boundary(chain, task_); to_measure && boundary) means = {*boundary};
      const auto captured = features::capture(
          model, chain.name, wanted, model.head->reads(), inputs, folder, recipe_.features,
          [&](int64_t done, int64_t total) { progress_.step("computing features, " + name, done, total); }, means);
      for (size_t i = 0; i < wanted.size(); ++i)
        if (captured.stores[i]) feed.use(chain.name, wanted[i], *captured.stores[i]);
      for (size_t i = 0; i < means.size(); ++i)
        if (captured.means[i]) feed.use_mean(chain.name, means[i], *captured.means[i]);
      seconds += captured.seconds;
    }
    return seconds;
  }

  /// Seconds that the frozen chains take for an example, from batches of about a second.
  double seconds_per_example(models::Model& model, const features::Inputs& inputs) {
    const torch::NoGradGuard no_grad;
    const train::Autocast autocast(model.device(), recipe_.features.bf16);
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

  /// The sample is made as large as the passes of all candidates, at the speed of a few batches of each, allow.
  void fit_the_budget() {
    constexpr int64_t kTimed = 256;
    double per_example = 0;
    for (size_t i = 0; i < names_.size(); ++i)
      attempt(i, [&] {
        auto& opened = open(i);
        const auto some = sampled(everything(opened), kTimed);
        opened.load(recipe_, some);
        auto examples = some.train;
        const auto prepared = opened.kind->prepare(*opened.loaded.model, examples, wanted("training"));
        per_example += seconds_per_example(*opened.loaded.model, *prepared.inputs);
        opened.loaded = {};
      });
    if (!(per_example > 0)) return;
    constexpr int64_t kLeast = 50;
    const auto fits = static_cast<int64_t>(recipe_.select.seconds / per_example);
    sample_ = std::clamp(fits, kLeast, std::max(kLeast, recipe_.select.sample));
    progress_.line(fmt::format(
        "an example takes {:.2g} s through all candidates, so {} fit into {:.0f} s: measured on at most {} examples",
        per_example, fits, recipe_.select.seconds, sample_));
  }

  // --- the measurement -------------------------------------------------------------------------------------------------

  void measure(size_t place) {
    const auto started = Clock::now();
    reset_peak_memory();
    auto& opened = open(place);
    const auto& origin = origins_[place];
    const auto& data = dataset(opened);
    opened.load(recipe_, data);
    auto& model = *opened.loaded.model;
    const auto [train, examples] = ready(opened, "training");
    const auto& inputs = *train->inputs;
    features::Feed feed(model, inputs);
    const auto captured = capture(model, inputs, feed, folder_of(place), origin.name, true);
    const auto n = inputs.size();
    const double per_example = captured > 0 ? captured / static_cast<double>(n) : seconds_per_example(model, inputs);
    const auto classifier = own_classifier(opened.source, model);
    auto features = select::frozen_features(model, feed, task_, data.label_names, examples, train->alignment,
                                            classifier ? classifier->head.get() : nullptr, sample_,
                                            seed_of(recipe_.seed, {"select", "words"}), words_);
    examples_ = n;
    // A step of training costs a pass forward and about two backward; views of an image are examples too.
    const double views = static_cast<double>(n) / static_cast<double>(data.train.size());
    const double per_epoch = 3 * per_example * views * static_cast<double>(training_examples_);
    int64_t parameters = 0;
    for (const auto& item : model.parameters_by_key()) parameters += item.value().numel();
    Facts facts{origin,
                place,
                {{"source", origin.name},
                 {"pinned", origin.pinned},
                 {"parameters", parameters},
                 {"dimensions", features.values.size(1)},
                 {"seconds_capture", captured},
                 {"seconds_per_epoch", per_epoch},
                 {"memory_bytes", peak_memory()}},
                per_epoch,
                train->skipped.count == 0 && !train->repeated ? inputs.hash() : ""};
    opened_[place].reset();
    done_.insert(place);
    const auto before = seconds_since(started);
    if (task_ == "tokens") {
      facts.json["seconds"] = before;
      pending_.push_back({std::move(facts), std::move(features)});
    } else {
      score(std::move(facts), features, before);
    }
  }

  void score(Facts facts, const select::FrozenFeatures& features, double seconds_before) {
    const auto started = Clock::now();
    auto measured = select::measure(features.values, features.targets, features.probabilities,
                                    seed_of(recipe_.seed, {"select", "sample"}));
    GRAFT_CHECK(data, measured_.empty() || measured_.front().measured.probe.size(0) == measured.probe.size(0),
                "{} of the examples can be used by this source and {} by the others, so they cannot be compared",
                measured.probe.size(0), measured_.front().measured.probe.size(0));
    const auto seconds = seconds_since(started);
    facts.json["scores"] = measured.scores;
    facts.json["seconds_scores"] = seconds;
    facts.json["seconds"] = seconds_before + seconds;
    progress_.line(fmt::format("{}: linear probe {:.4f}, LogME {:.4f} ({} dimensions, {:.1f} s)", facts.origin.name,
                               measured.scores.at("linear_probe"), measured.scores.at("log_me"),
                               features.values.size(1), seconds_before + seconds));
    measured_.push_back({facts.origin.name, std::move(measured), facts.seconds_per_epoch});
    facts_.push_back(std::move(facts));
  }

  void score_common_words() {
    if (pending_.empty()) return;
    std::vector<select::FrozenFeatures*> all;
    for (auto& item : pending_) all.push_back(&item.features);
    select::keep_common_words(all);
    data::Examples words;
    const auto classes = pending_.front().features.targets.classes;
    words.labels.assign(classes.const_data_ptr<int64_t>(), classes.const_data_ptr<int64_t>() + classes.numel());
    select::expect_enough(words, "tokens", read_[0]->label_names);
    for (auto& item : pending_) {
      const auto place = item.facts.place;
      const auto before = item.facts.json["seconds"].get<double>();
      item.facts.json["words"] = classes.numel();
      attempt(place, [&] { score(std::move(item.facts), item.features, before); });
      item.features = {};
    }
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
    auto& opened = open(facts.place);
    const auto& data = dataset(opened);
    opened.load(recipe_, data);
    auto& model = *opened.loaded.model;
    const auto [train, examples] = ready(opened, "training");
    const auto [validation, judged_examples] = ready(opened, "validation");
    features::Feed feed(model, *train->inputs), judged(model, *validation->inputs);
    capture(model, *train->inputs, feed, folder_of(facts.place), facts.origin.name, false);
    capture(model, *validation->inputs, judged, folder_of(facts.place), facts.origin.name, false);
    const auto stream = train::task_stream(model, feed, task_, data.label_names, examples, train->alignment);
    const auto judge =
        train::task_stream(model, judged, task_, data.label_names, judged_examples, validation->alignment);
    metric = recipe_.finetune.metric.empty() ? train::default_metric_of(model, feed, task_, data.label_names, examples)
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
    const auto best = phase.state().best;
    opened_[facts.place].reset();
    return best;
  }

  /// The order of the survivors is that of the last round that they were in.
  void halve(select::Ranked& ranked) {
    done_.clear();
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
      if (results.size() == 2) break;
      alive.resize((alive.size() + 1) / 2);
    }
    const auto by_scores = ranked.winner, best = ranked.order.front();
    const auto& name = [&](size_t i) -> const std::string& { return measured_[i].name; };
    // Of those whose heads learned as long.
    ranked.winner = select::worth_its_cost(measured_, ranked, best, alive);
    if (ranked.winner != best)
      ranked.sentence = fmt::format(
          "{} is taken: the head of {} learns best, but the data cannot tell the two apart, and it takes {:.1f} times "
          "as long.",
          name(ranked.winner), name(best),
          measured_[best].seconds_per_epoch / measured_[ranked.winner].seconds_per_epoch);
    else if (best == by_scores)
      ranked.sentence = fmt::format("{} is taken: the scores and the trained heads agree.", name(best));
    else
      ranked.sentence =
          fmt::format("{} is taken: its head learns best; by the scores it would be {}.", name(best), name(by_scores));
    ranked.sentence += select::disagreement(measured_, ranked);
  }

  Json data_json() const { return finding_.json(); }

  Json answer(const select::Ranked& ranked, double seconds) const {
    Json ranking = Json::array(), runner_up;
    for (const auto i : ranked.order) {
      auto item = facts_[i].json;
      item["combined"] = ranked.combined[i];
      item["combined_interval"] = {ranked.combined_lower[i], ranked.combined_upper[i]};
      item["probe_interval"] = {ranked.lower[i], ranked.upper[i]};
      item["best_share"] = ranked.best_share[i];
      if (!facts_[i].rounds.empty()) item["rounds"] = facts_[i].rounds;
      ranking.push_back(item);
      if (runner_up.is_null() && i != ranked.winner)
        runner_up = {{"source", facts_[i].origin.name},
                     {"pinned", facts_[i].origin.pinned},
                     {"level", static_cast<bool>(ranked.level[ranked.winner][i])}};
    }
    Json best_by = Json::object();
    for (const auto& [score, i] : ranked.best_by) best_by[score] = measured_[i].name;
    const auto& winner = facts_[ranked.winner];
    return {
        {"winner", winner.origin.name},
        {"pinned", winner.origin.pinned},
        {"place", winner.place},
        {"runner_up", runner_up},
        {"sentence", ranked.sentence},
        {"data", data_json()},
        {"task", task_},
        {"examples", examples_},
        {"training_examples", training_examples_},
        {"images_decoded", images_decoded_},
        {"part",
         winner.inputs.empty() ? Json() : Json{{"count", sample_}, {"examples", examples_}, {"inputs", winner.inputs}}},
        {"ranking", ranking},
        {"best_by", best_by},
        {"dropped", dropped_},
        {"seconds", seconds}};
  }

  fs::path folder_of(size_t place) const {
    return recipe_.features.folder.empty() ? folder_ / std::to_string(place) : fs::path(recipe_.features.folder);
  }

  struct Pending {
    Facts facts;
    select::FrozenFeatures features;
  };

  const Recipe& recipe_;
  fs::path folder_;
  bool ahead_;
  report::Progress& progress_;
  select::DataFinding finding_;
  std::string task_, modality_;
  std::vector<std::string> names_;
  std::vector<FoundSource> origins_;
  std::vector<std::unique_ptr<Opened>> opened_;  // of those whose turn is coming
  std::set<size_t> dropped_places_, done_;
  std::vector<std::string> away_;  // not here, and nobody answered
  std::string unreachable_;
  std::optional<data::Dataset> read_[2], sampled_[2];  // of texts, of images
  std::shared_ptr<data::ImageFiles> image_files_;
  std::map<std::string, Ready> images_;  // by split and settings of their preparation
  std::vector<int64_t> words_;
  std::vector<Pending> pending_;
  int64_t sample_ = recipe_.select.sample, examples_ = 0, training_examples_ = 0, images_decoded_ = 0;
  std::vector<select::Candidate> measured_;
  std::vector<Facts> facts_;
  Json dropped_ = Json::array();
};

}  // namespace

std::optional<features::KnownPart> measured_part(const Json& selection, const Recipe& recipe,
                                                 const data::Dataset& dataset, const Prepared& train) {
  const auto part = selection.value("part", Json());
  if (part.is_null() || recipe.finetune.batch_norm != "source" || train.skipped.count > 0 || train.repeated) return {};
  auto examples = select::sample_examples(dataset.train, dataset.task, static_cast<int64_t>(dataset.label_names.size()),
                                          part["count"].get<int64_t>(), recipe.seed);
  if (static_cast<int64_t>(examples.size()) != part["examples"].get<int64_t>() ||
      static_cast<int64_t>(examples.size()) == dataset.train.size())
    return {};
  return features::KnownPart{std::move(examples), part["inputs"].get<std::string>()};
}

Json plan_selection(const Recipe& recipe, report::Progress& progress) {
  return Selection(recipe, {}, false, progress).plan();
}

Json select_source(const Recipe& recipe, const fs::path& folder, bool ahead, report::Progress& progress) {
  use_machine(recipe.train.threads, recipe.train.device);
  return Selection(recipe, folder, ahead, progress).run();
}

}  // namespace graft::run
