#include "graft/run/retention.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <tuple>

#include "graft/core/error.h"
#include "graft/core/hash.h"
#include "graft/core/interrupt.h"
#include "graft/core/random.h"
#include "graft/data/corpus.h"
#include "graft/features/feed.h"
#include "graft/models/loading.h"
#include "graft/models/weight_type.h"
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

constexpr int64_t kRowsMeasured = 2048;

bool is_language(const std::string& kind) { return kind == "masked_lm" || kind == "causal_lm"; }

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
      task_(options.corpus.empty() ? models::task_of(source_.config, *source_.architecture)
                                   : models::Task{source_.architecture->language_task}),
      names_(models::label_names(source_.config)) {
  auto plain = images;
  plain.augment.enabled = false;
  kind_ = task_inputs(source_, max_length, plain);
  auto loaded = models::load(source_, task_, seed_of(seed, {"retain", "head"}));
  const bool answers = is_labelled(task_.kind) || is_language(task_.kind);
  GRAFT_CHECK(
      usage, options_.corpus.empty() || (is_language(task_.kind) && loaded.report.fresh.empty()),
      "retain.corpus: {} has no trained language head, so its perplexity on general text cannot be measured, and "
      "it cannot be replayed. Leave the key out; drift and agreement are measured on the new examples.",
      source_.name);
  if ((!answers || !loaded.report.fresh.empty()) && !options_.has_source_data()) {
    task_ = {"features"};  // a head that nobody trained knows nothing, and one that paints images answers nothing
    loaded = models::load(source_, task_, seed_of(seed, {"retain", "head"}));
  }
  probe_ = loaded.model;
  probe_->unfreeze_only({});
  probe_->eval();
  if (!options_.corpus.empty()) read_corpus(max_length);
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

void SourceKnowledge::read_corpus(int64_t max_length) {
  adapt::AdaptOptions reading;
  reading.corpus = options_.corpus;
  reading.text = options_.source_data.text;
  reading.bad_rows = options_.source_data.bad_rows;
  reading.held_out_fraction = options_.corpus_held_out;
  reading.max_length = max_length;
  corpus_ = kind_->objective(*probe_, source_, reading, seed_of(seed_, {"retain", "corpus"}), {});
  const auto seed = seed_of(seed_, {"retain", "measured on"});
  if (options_.chooses() && corpus_.held_out->size() > 1)
    std::tie(measured_[0], measured_[1]) = halves(corpus_.held_out->size(), options_.examples, seed);
  else measured_[0] = measured_[1] = train::sample(corpus_.held_out->size(), options_.examples, seed);
  Sha256 hash;
  data::for_each_document(
      {reading.corpus, reading.text, reading.bad_rows, reading.held_out_fraction},
      [&](std::string_view document, bool held) { hash.update(document).update(held ? "h" : "t"); });
  data_.hash = hash.hex();
}

void SourceKnowledge::compare_on(const features::Inputs& inputs) {
  proxy_ = &inputs;
  GRAFT_ASSERT(!released_);
  const auto seed = seed_of(seed_, {"retain", "compared on"});
  auto& [report, choice] = asked_;
  report.compared = train::sample(inputs.size(), options_.examples, seed);
  // Choices are made by the labelled examples where there are such.
  if (options_.chooses() && !choice.prepared.inputs && !corpus_.held_out && inputs.size() > 1) {
    std::tie(report.compared, choice.compared) = halves(inputs.size(), options_.examples, seed);
    choice.before = retain::observe(*probe_, inputs, choice.compared, rows_at_once());
  }
  report.before = retain::observe(*probe_, inputs, report.compared, rows_at_once());
}

int64_t SourceKnowledge::rows_at_once() const {
  return is_language(task_.kind) ? 512 : 4096;  // logits of a whole vocabulary are large
}

void SourceKnowledge::release(const models::Model& model, bool head) {
  retain::release_blocks(*probe_, model, head);
  released_ = true;
}

Json SourceKnowledge::judged(Asked asked) {
  Json measure = Json::object();
  const auto chosen = asked == Asked::choice && options_.chooses() ? 1 : 0;
  const auto& [examples, prepared, compared, before] = asked_[chosen];
  if (prepared.inputs) {
    const features::Feed feed(*probe_, *prepared.inputs);
    const auto stream = train::task_stream(*probe_, feed, task_.kind, names_, examples, prepared.alignment);
    const auto predictions = train::evaluate(*probe_, *stream, 8192, false);
    const auto metric = task_.kind == "classification" ? std::string("accuracy") : train::default_metric(predictions);
    measure["metric"] = metric;
    measure["value"] = train::metric_of(metric, predictions);
    measure["examples"] = examples.size();
  }
  if (corpus_.held_out) {
    const auto& measured = measured_[chosen];
    double loss = 0, weight = 0;
    for (size_t i = 0; i < measured.size();) {
      stop_if_interrupted();
      std::vector<int64_t> batch;
      for (int64_t rows = 0; i < measured.size() && (batch.empty() || rows < kRowsMeasured); ++i) {
        batch.push_back(measured[i]);
        rows += corpus_.held_out->rows(measured[i]);
      }
      const torch::NoGradGuard no_grad;
      const auto outputs = train::forward_behind(*probe_, corpus_.held_out->enter(batch, train::kEvaluation),
                                                 corpus_.held_out->reads(batch, train::kEvaluation));
      loss += corpus_.held_out->loss_sum(outputs, batch, train::kEvaluation).item<double>();
      weight += corpus_.held_out->weight(batch, train::kEvaluation);
    }
    measure["metric"] = "perplexity";
    measure["value"] = std::exp(loss / std::max(1.0, weight));
    measure["examples"] = measured.size();
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

retain::Anchors SourceKnowledge::fisher(const train::Stream* proxy, const features::Inputs* proxy_inputs) {
  GRAFT_ASSERT(!released_);
  // Of general text the next token is known too, but the definition draws it from the model.
  const bool given = corpus_.training ? options_.ewc.labels == "given" : train_.inputs && options_.ewc.labels != "own";
  std::unique_ptr<features::Feed> feed;
  std::unique_ptr<train::Stream> labelled;
  probe_->unfreeze_only(probe_->all_groups());  // examples enter at the first block
  if (train_.inputs) {
    feed = std::make_unique<features::Feed>(*probe_, *train_.inputs);
    labelled = train::task_stream(*probe_, *feed, task_.kind, names_, data_.train, train_.alignment);
  }
  std::shared_ptr<train::Stream> masked;
  if (task_.kind == "masked_lm" && !corpus_.training && proxy_inputs)
    masked = kind_->masked(*probe_, source_, *proxy_inputs, seed_of(seed_, {"retain", "masks"}));
  const auto& inputs = corpus_.training ? *corpus_.training : labelled ? *labelled : masked ? *masked : *proxy;
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
  constexpr double kUsual = 0.05;
  const bool labels = options_.replay.fraction > 0, held = options_.kl.coefficient > 0 && options_.kl.corpus;
  if (!labels && !held) return nullptr;
  auto old_head = head ? nullptr : probe_->head;
  retain::Replay::Beside beside{.labels = labels};
  if (corpus_.training) {
    replay_stream_ = corpus_.stream_on(model, false);
    if (!head) {
      // Not the probe's: a tied matrix is of its embeddings, which are other ones while it borrows.
      language_ = load_source();
      language_->unfreeze_only({});
      language_->eval();
      retain::keep_behind(*language_, static_cast<int64_t>(language_->chains.front().blocks.size()));
      old_head = language_->head;
    }
  } else {
    const auto& kept = buffered_.inputs ? buffered_ : train_;
    replay_feed_ = std::make_unique<features::Feed>(model, *kept.inputs);
    replay_stream_ = train::task_stream(model, *replay_feed_, task_.kind, names_, buffer_, kept.alignment);
    beside.logits_weight = options_.replay.logits;
    if (beside.logits_weight > 0)
      beside.logits = retain::answers(*probe_, features::Feed(*probe_, *kept.inputs), probe_->head->reads(), true, {},
                                      rows_at_once());
  }
  std::vector<int64_t> all(replay_stream_->size());
  std::iota(all.begin(), all.end(), 0);
  if (held)
    beside.term = std::make_shared<retain::Kl>(
        options_.kl, teacher(model, [this](models::Model& source) { return corpus_.stream_on(source, false); }));
  return std::make_shared<retain::Replay>(*replay_stream_, std::move(all), labels ? options_.replay.fraction : kUsual,
                                          seed_, std::move(old_head), std::move(beside));
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

std::shared_ptr<train::LossTerm> SourceKnowledge::kl(const models::Model& model, bool head, const StreamOn& stream_on,
                                                     bool fixed) {
  const auto& o = options_.kl;
  if (o.coefficient <= 0 || (o.corpus && !head)) return nullptr;  // then it is held on general text alone
  GRAFT_CHECK(
      usage, is_language(task_.kind),
      "retain.kl: {} has no trained language head ({}), so it says nothing of the next token that could be held. "
      "Leave the section out; retain.lwf holds classes and features.",
      source_.name, source_.architecture->class_name(task_));
  GRAFT_CHECK(
      usage, head,
      "retain.kl: the new task has a head of its own, which gives no distribution over tokens. Hold it on general "
      "text (retain.corpus with retain.kl.corpus = true); on the task's own texts it is for adapt and for data.task "
      "= \"causal_lm\" alone.");
  const auto teacher = this->teacher(model, stream_on);
  const bool whole = teacher->kind() == retain::Teacher::Kind::whole;
  std::shared_ptr<retain::StoredAnswers> stored;
  if (o.teacher == "top_k" || (o.teacher == "auto" && whole && fixed)) {
    GRAFT_CHECK(usage, fixed,
                "retain.kl.teacher = \"top_k\": masks are drawn anew in each epoch, so answers cannot be stored. Write "
                "live, or leave it at auto.");
    const auto source = teacher->whole();
    stored = std::make_shared<retain::StoredAnswers>(
        *teacher, *stream_on(*source), o.top_k, retain::kl_direction(o.direction), rows_at_once(),
        [&](int64_t done, int64_t total) { progress_.step("the source's answers, stored once", done, total); });
    progress_.line(fmt::format(
        "KL to the source: its {} likeliest tokens of each of {} positions are stored ({:.1f} MB). Of a model whose "
        "last "
        "states are off by a tenth they give {:.5f} nats for {:.5f}",
        o.top_k, stored->positions(), static_cast<double>(stored->bytes()) / 1e6, stored->stored, stored->exact));
  } else {
    progress_.line(
        fmt::format("KL to the source: asked in each step{}", teacher->kind() == retain::Teacher::Kind::adapters_off
                                                                  ? ", the model itself without its adapters"
                                                              : whole ? ", all of it, for the model was adapted before"
                                                                      : ", from where the model begins to learn"));
  }
  return std::make_shared<retain::Kl>(o, teacher, stored);
}

std::shared_ptr<retain::Teacher> SourceKnowledge::teacher(const models::Model& model, const StreamOn& stream_on) const {
  return std::make_shared<retain::Teacher>(
      model, [this, weights = models::weight_type(model)] { return load_source(weights); },
      [stream_on](models::Model& source, const std::vector<int64_t>& examples, uint64_t epoch) {
        return stream_on(source)->enter(examples, epoch);
      });
}

std::shared_ptr<models::Model> SourceKnowledge::load_source(torch::Dtype weights) const {
  return models::load(source_, task_, seed_of(seed_, {"retain", "head"}), true, weights).model;
}

std::map<std::string, models::Tensor> SourceKnowledge::weights(bool head) const {
  const auto source = load_source();
  std::map<std::string, models::Tensor> chosen;
  for (const auto& items : {source->parameters_by_key(), source->buffers_by_key()})
    for (const auto& item : items)
      if (head || source->group_of(item.key()) != "head") chosen[item.key()] = item.value().detach();
  return chosen;
}

double kept(const Json& measure) {
  if (measure.value("metric", "") == "perplexity") return -std::log(measure["value"].get<double>());
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
