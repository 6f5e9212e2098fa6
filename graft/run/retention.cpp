#include "graft/run/retention.h"

#include <algorithm>
#include <numeric>
#include <tuple>

#include "graft/core/error.h"
#include "graft/core/random.h"
#include "graft/features/feed.h"
#include "graft/models/loading.h"
#include "graft/retain/buffer.h"
#include "graft/retain/fisher.h"
#include "graft/retain/own_labels.h"
#include "graft/retain/replay.h"
#include "graft/train/supervised.h"

namespace graft::run {
namespace {

bool is_labelled(const std::string& kind) {
  return kind == "classification" || kind == "multilabel" || kind == "regression" || kind == "tokens";
}

/// A seeded sample in two halves of at most `count` each.
std::pair<std::vector<int64_t>, std::vector<int64_t>> halves(int64_t size, int64_t count, uint64_t seed) {
  auto some = train::sample(size, 2 * count, seed);
  Random(seed_of(seed, {"half"})).shuffle(some);
  const auto middle = some.begin() + static_cast<std::ptrdiff_t>((some.size() + 1) / 2);
  std::vector<int64_t> first(some.begin(), middle), second(middle, some.end());
  std::sort(first.begin(), first.end());
  std::sort(second.begin(), second.end());
  return {first, second};
}

}  // namespace

SourceKnowledge::SourceKnowledge(models::Source source, const retain::RetainOptions& options, int64_t max_length,
                                 const data::ImageOptions& images, uint64_t seed, report::Progress& progress)
    : source_(std::move(source)),
      options_(options),
      seed_(seed),
      progress_(progress),
      task_(models::task_of(source_.config, *source_.architecture)),
      names_(models::label_names(source_.config)) {
  auto plain = images;
  plain.augment.enabled = false;
  kind_ = task_inputs(source_, max_length, plain);
  auto loaded = models::load(source_, task_, seed_of(seed, {"retain", "head"}));
  const bool answers = is_labelled(task_.kind) || task_.kind == "masked_lm" || task_.kind == "causal_lm";
  if ((!answers || !loaded.report.fresh.empty()) && !options_.has_source_data()) {
    task_ = {"features"};  // a head that nobody trained knows nothing, and one that paints images answers nothing
    loaded = models::load(source_, task_, seed_of(seed, {"retain", "head"}));
  }
  probe_ = loaded.model;
  probe_->unfreeze_only({});
  probe_->eval();
  if (!options_.has_source_data()) return;

  GRAFT_CHECK(
      usage, is_labelled(task_.kind) && loaded.report.fresh.empty(),
      "retain.source_data: {} has no trained head ({}), so its accuracy on labelled data cannot be measured. Leave "
      "the section out; drift and agreement are measured without labels.",
      source_.name, source_.architecture->class_name(task_));
  GRAFT_CHECK(usage, task_.kind == "regression" || static_cast<int64_t>(names_.size()) == task_.num_labels,
              "retain.source_data: {} does not name its {} classes, so they cannot be told in the data. Write "
              "\"label_names\" into its configuration.",
              source_.name, task_.num_labels);
  options_.source_data.task = task_.kind;
  data_ = kind_->read(options_.source_data, seed_, names_);
  Wanted wanted{.split = "source test", .task = task_.kind};
  if (options_.source_data.bad_rows == "skip") wanted.bad_rows = data::BadRows::skip;
  ask(wanted);
  const bool trains = options_.replay.fraction > 0 || options_.ewc.strength > 0;
  if (!trains) return;
  GRAFT_CHECK(usage, data_.train.size() > 0,
              "retain.source_data: has no training examples, which replay and the Fisher take. Give a folder with a "
              "training file, or name it as retain.source_data.train.");
  wanted.split = "source training";
  train_ = kind_->prepare(*probe_, data_.train, wanted);
  if (options_.replay.fraction <= 0) return;
  const auto size = data_.train.size();
  buffer_ = data::take(data_.train, buffered());
  if (buffer_.size() < size) buffered_ = kind_->prepare(*probe_, buffer_, wanted);
  progress_.line(fmt::format("{} of the source's {} examples are kept for replay{}", buffer_.size(), size,
                             buffer_.size() < size ? " (" + options_.replay.buffer + ")" : ""));
}

/// Which of the training examples are kept for replay.
std::vector<int64_t> SourceKnowledge::buffered() {
  const auto& [count, buffer] = std::pair{options_.replay.size, options_.replay.buffer};
  const auto seed = seed_of(seed_, {"retain", "buffer"});
  const auto n = data_.train.size();
  if (buffer == "reservoir") return retain::reservoir(n, count, seed);
  const auto labels = data_.train.labels.empty() ? std::vector<int64_t>(n) : data_.train.labels;
  if (buffer != "herding" || count <= 0 || count >= n) return retain::balanced(labels, count, seed);
  std::vector<int64_t> all(n);
  std::iota(all.begin(), all.end(), 0);
  return retain::herded(retain::observe(*probe_, *train_.inputs, all, rows_at_once()).features, labels, count);
}

void SourceKnowledge::ask(const Wanted& wanted) {
  const auto& test = data_.test.size() > 0 ? data_.test : data_.validation.size() > 0 ? data_.validation : data_.train;
  const auto seed = seed_of(seed_, {"retain", "measured on"});
  auto& [report, choice] = asked_;
  const auto some = [&](const data::Examples& all) {
    return data::take(all, train::sample(all.size(), options_.examples, seed));
  };
  if (!options_.chooses()) {
    report.examples = some(test);
  } else if (data_.test.size() > 0 && data_.validation.size() > 0) {
    report.examples = some(data_.test);
    choice.examples = some(data_.validation);
  } else {
    GRAFT_CHECK(data, test.size() > 1,
                "retain.source_data: one example cannot both choose and report; give more, or validation and test "
                "files.");
    const auto [first, second] = halves(test.size(), options_.examples, seed);
    report.examples = data::take(test, first);
    choice.examples = data::take(test, second);
  }
  for (auto* questions : {&report, &choice})
    if (questions->examples.size() > 0) questions->prepared = kind_->prepare(*probe_, questions->examples, wanted);
}

void SourceKnowledge::compare_on(const features::Inputs& inputs) {
  proxy_ = &inputs;
  GRAFT_ASSERT(!released_);
  const auto seed = seed_of(seed_, {"retain", "compared on"});
  auto& [report, choice] = asked_;
  report.compared = train::sample(inputs.size(), options_.examples, seed);
  // Choices are made by the labelled examples where there are such.
  if (options_.chooses() && !choice.prepared.inputs && inputs.size() > 1) {
    std::tie(report.compared, choice.compared) = halves(inputs.size(), options_.examples, seed);
    choice.before = retain::observe(*probe_, inputs, choice.compared, rows_at_once());
  }
  report.before = retain::observe(*probe_, inputs, report.compared, rows_at_once());
}

int64_t SourceKnowledge::rows_at_once() const {
  return task_.kind == "masked_lm" || task_.kind == "causal_lm" ? 512 : 4096;  // logits of a whole vocabulary are large
}

void SourceKnowledge::release(const models::Model& model, bool head) {
  retain::release_blocks(*probe_, model, head);
  released_ = true;
}

Json SourceKnowledge::judged(Asked asked) {
  Json measure = Json::object();
  const auto& [examples, prepared, compared, before] = questions(asked);
  if (prepared.inputs) {
    const features::Feed feed(*probe_, *prepared.inputs);
    const auto stream = train::task_stream(*probe_, feed, task_.kind, names_, examples, prepared.alignment);
    const auto predictions = train::evaluate(*probe_, *stream, 8192, false);
    const auto metric = task_.kind == "classification" ? std::string("accuracy") : train::default_metric(predictions);
    measure["metric"] = metric;
    measure["value"] = train::metric_of(metric, predictions);
    measure["examples"] = examples.size();
  }
  if (proxy_ && !compared.empty()) {
    const auto now = retain::observe(*probe_, *proxy_, compared, rows_at_once());
    measure["cka"] = retain::linear_cka(before.features, now.features);
    if (now.choices.defined()) measure["agreement"] = retain::agreement(before.choices, now.choices);
    measure["compared_on"] = compared.size();
  }
  return measure;
}

Json SourceKnowledge::original(Asked asked) {
  GRAFT_ASSERT(!released_);
  return judged(asked);
}

Json SourceKnowledge::measure(const models::Model& model, bool head, Asked asked) {
  const retain::BorrowedBlocks borrowed(*probe_, model, head);
  return judged(asked);
}

retain::Anchors SourceKnowledge::fisher(const train::Stream* proxy) {
  GRAFT_ASSERT(!released_);
  const bool given = train_.inputs && options_.ewc.labels != "own";
  std::unique_ptr<features::Feed> feed;
  std::unique_ptr<train::Stream> labelled;
  probe_->unfreeze_only(probe_->all_groups());  // examples enter at the first block
  if (train_.inputs) {
    feed = std::make_unique<features::Feed>(*probe_, *train_.inputs);
    labelled = train::task_stream(*probe_, *feed, task_.kind, names_, data_.train, train_.alignment);
  }
  const auto& inputs = labelled ? *labelled : *proxy;
  const retain::OwnLabels own(inputs, task_.kind, seed_);
  const auto examples = train::sample(inputs.size(), options_.ewc.examples, seed_of(seed_, {"retain", "fisher"}));
  retain::FisherWork work{.batch_rows = std::min<int64_t>(2048, rows_at_once())};
  work.progress = [&](int64_t done, int64_t total) { progress_.step("Fisher of the source", done, total); };
  const auto fisher = retain::fisher(*probe_, given ? static_cast<const train::Stream&>(inputs) : own, examples, work);
  probe_->unfreeze_only({});
  auto anchors = retain::anchors_at(*probe_, fisher.diagonal);
  anchors.domains.push_back({{"model", source_.name},
                             {"examples", fisher.examples},
                             {"labels", given ? "given" : "own"},
                             {"task", task_.kind}});
  progress_.line(fmt::format(
      "Fisher of {} from {} examples, labels {}{}", source_.name, fisher.examples,
      given ? "as given" : "drawn from its own outputs",
      fisher.looped.empty() ? "" : fmt::format(" ({} parameters one example at a time)", fisher.looped.size())));
  return anchors;
}

std::shared_ptr<train::LossTerm> SourceKnowledge::replay(models::Model& model, bool head) {
  if (options_.replay.fraction <= 0) return nullptr;
  const auto& kept = buffered_.inputs ? buffered_ : train_;
  replay_feed_ = std::make_unique<features::Feed>(model, *kept.inputs);
  replay_stream_ = train::task_stream(model, *replay_feed_, task_.kind, names_, buffer_, kept.alignment);
  std::vector<int64_t> all(kept.inputs->size());
  std::iota(all.begin(), all.end(), 0);
  retain::Answers logits;
  if (options_.replay.logits > 0)
    logits = retain::answers(*probe_, features::Feed(*probe_, *kept.inputs), probe_->head->reads(), true, {},
                             rows_at_once());
  return std::make_shared<retain::Replay>(*replay_stream_, std::move(all), options_.replay.fraction, seed_,
                                          head ? nullptr : probe_->head, std::move(logits), options_.replay.logits);
}

std::filesystem::path SourceKnowledge::answers_file(const features::Inputs& inputs, const models::Reads& reads,
                                                    const std::filesystem::path& folder,
                                                    const features::StoreOptions& store) const {
  if (!store.enabled) return {};
  const bool logits = retain::answers_with_logits(task_.kind, probe_->head->reads(), reads);
  return retain::answers_file(*probe_, inputs, reads, logits, folder, store);
}

retain::Answers SourceKnowledge::answers(const features::Feed& feed, const models::Reads& reads,
                                         const std::filesystem::path& file) {
  GRAFT_ASSERT(!released_);
  const bool logits = retain::answers_with_logits(task_.kind, probe_->head->reads(), reads);
  return retain::answers(*probe_, feed, reads, logits, file, rows_at_once());
}

std::map<std::string, models::Tensor> SourceKnowledge::weights(bool head) const {
  const auto source = models::load(source_, task_, seed_of(seed_, {"retain", "head"})).model;
  std::map<std::string, models::Tensor> chosen;
  for (const auto& items : {source->parameters_by_key(), source->buffers_by_key()})
    for (const auto& item : items)
      if (head || source->group_of(item.key()) != "head") chosen[item.key()] = item.value().detach();
  return chosen;
}

double kept(const Json& measure) {
  for (const auto* key : {"value", "agreement", "cka"})
    if (measure.contains(key)) return measure[key].get<double>();
  return 0;
}

std::string retained_text(const Json& now, const Json& before) {
  std::vector<std::string> parts;
  if (now.contains("value"))
    parts.push_back(fmt::format("{} {:.4f} ({:+.4f})", now["metric"].get<std::string>(), now["value"].get<double>(),
                                now["value"].get<double>() - before["value"].get<double>()));
  if (now.contains("agreement"))
    parts.push_back(fmt::format("{:.1f} % of its answers as before", 100 * now["agreement"].get<double>()));
  if (now.contains("cka")) parts.push_back(fmt::format("features {:.3f} alike (CKA)", now["cka"].get<double>()));
  return fmt::format("{}", fmt::join(parts, ", "));
}

}  // namespace graft::run
