#include "graft/adapt/adaptation.h"

#include <chrono>
#include <cmath>

#include "graft/core/error.h"
#include "graft/core/interrupt.h"
#include "graft/data/corpus.h"

namespace graft::adapt {
namespace {

constexpr size_t kDocumentsAtOnce = 4096;

/// Documents on their way to the tokenizer, some thousands at a time.
struct Pending {
  std::vector<std::string> documents;

  void flush(const data::Tokenizer& tokenizer, int64_t max_length, features::TextInputs& into) {
    const std::vector<std::string_view> views(documents.begin(), documents.end());
    if (!views.empty()) pack(tokenizer, views, max_length, into);
    documents.clear();
  }
};

}  // namespace

Corpus read_corpus(const AdaptOptions& options, const models::Model& model, const data::Tokenizer& tokenizer, int64_t max_length) {
  Corpus corpus{features::TextInputs(model, max_length), features::TextInputs(model, max_length)};
  Pending training, held_out;
  const auto take = [&](Pending& pending, features::TextInputs& into, std::string_view document) {
    pending.documents.emplace_back(document);
    if (pending.documents.size() >= kDocumentsAtOnce) pending.flush(tokenizer, max_length, into);
  };
  const auto summary = data::for_each_document({options.corpus, options.text, options.bad_rows, options.held_out_fraction}, [&](std::string_view document, bool held) {
    if (options.max_documents > 0 && corpus.documents >= options.max_documents) return;
    ++corpus.documents;
    corpus.held_out_documents += held;
    held ? take(held_out, corpus.held_out, document) : take(training, corpus.training, document);
  });
  training.flush(tokenizer, max_length, corpus.training);
  held_out.flush(tokenizer, max_length, corpus.held_out);
  corpus.skipped = summary.skipped.count;
  GRAFT_CHECK(data, corpus.training.size() > 0, "{}: holds no document to train on; give more text.", options.corpus);
  GRAFT_CHECK(data, corpus.held_out.size() > 0, "{}: {} documents are too few to hold any out; give more text, or raise adapt.held_out_fraction.", options.corpus, corpus.documents);
  return corpus;
}

Adaptation::Adaptation(models::Model& model, const Corpus& corpus, const MaskRules& rules, const AdaptOptions& options,
                       const train::TrainOptions& training, uint64_t seed, Hooks hooks)
    : model_(model), hooks_(std::move(hooks)), train_(model, corpus.training, rules, seed), held_out_(model, corpus.held_out, rules, seed),
      training_(training), seed_(seed) {
  training_.batch_size = options.batch_size;
  plan_.stage = "adapt";
  plan_.name = "masked_lm";
  plan_.trainable = {"head"};
  for (const auto& group : model.groups) plan_.trainable.insert(group.name);
  for (const auto& group : plan_.trainable) plan_.learning_rates[group] = options.learning_rate;
  plan_.weight_decay = training.weight_decay;
  plan_.epochs = options.epochs;
  plan_.patience = options.patience;
  plan_.metric = "loss";
  result_ = {{"documents", corpus.documents}, {"held_out_documents", corpus.held_out_documents}, {"sequences", corpus.training.size()}};
}

void Adaptation::resume(const Json& state, const Tensors& tensors) {
  result_ = state.at("result");
  plan_.start_metric = result_.at("before").at("loss").get<double>();
  phase_ = std::make_unique<train::Phase>(model_, plan_, training_, train_, held_out_, seed_);
  phase_->resume(state.at("phase"), tensors);
}

void Adaptation::run() {
  const auto saved = [&](bool must) {
    if (hooks_.save) hooks_.save({{"result", result_}, {"phase", phase_->state_json()}}, phase_->state_tensors(), must);
  };
  const auto measured = [](double loss) { return Json{{"loss", loss}, {"perplexity", std::exp(loss)}}; };
  hooks_.progress->title("Adapting to the domain: masked language modelling");
  if (!phase_) {
    model_.unfreeze_only(plan_.trainable);
    const auto before = train::evaluate(model_, held_out_, training_.micro_batch_tokens, training_.precision == "bfloat16").loss;
    result_["before"] = measured(before);
    plan_.start_metric = before;
    hooks_.journal("adapt_start", result_);
    hooks_.progress->line(fmt::format("{} documents in {} sequences; held-out perplexity before: {:.2f}", result_["documents"].get<int64_t>(), train_.size(), std::exp(before)));
    phase_ = std::make_unique<train::Phase>(model_, plan_, training_, train_, held_out_, seed_);
  }
  const auto started = std::chrono::steady_clock::now();
  train::PhaseHooks hooks;
  hooks.step_done = [&](int64_t epoch, int64_t step, int64_t steps, double loss, int64_t) {
    hooks_.progress->step(fmt::format("adapt, epoch {}/{}", epoch + 1, plan_.epochs), step, steps, fmt::format("loss {:.4f}", loss));
  };
  hooks.epoch_done = [&](const Json& epoch) {
    auto entry = epoch;
    entry["phase"] = "adapt";
    entry["perplexity"] = std::exp(epoch["validation_loss"].get<double>());
    hooks_.journal("epoch", entry);
    hooks_.progress->line(fmt::format("adapt, epoch {}/{}: held-out perplexity {:.2f}", epoch["epoch"].get<int64_t>(), plan_.epochs, std::exp(epoch["validation_loss"].get<double>())));
    saved(false);
  };
  try {
    phase_->run(hooks);
  } catch (const Interrupted&) {
    saved(true);
    throw;
  }
  phase_->restore_best();
  result_["after"] = measured(phase_->state().best);
  result_["best_epoch"] = phase_->state().best_epoch;
  auto entry = result_;
  entry["phase"] = "adapt";
  entry["seconds"] = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
  hooks_.journal("phase_end", entry);
  hooks_.progress->line(fmt::format("held-out perplexity {:.2f} -> {:.2f}", result_["before"]["perplexity"].get<double>(), result_["after"]["perplexity"].get<double>()));
}

}  // namespace graft::adapt
