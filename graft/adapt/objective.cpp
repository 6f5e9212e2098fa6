#include "graft/adapt/objective.h"

#include "graft/adapt/causal_lm.h"
#include "graft/adapt/masked_lm.h"
#include "graft/core/error.h"
#include "graft/data/corpus.h"

namespace graft::adapt {
namespace {

constexpr size_t kDocumentsAtOnce = 4096;

/// Hands the documents on some thousands at a time, so that they are tokenized on all cores and memory holds few.
Json read_documents(const AdaptOptions& options,
                    const std::function<void(const std::vector<std::string_view>& documents, bool held_out)>& use) {
  int64_t documents = 0, held_out_documents = 0;
  std::vector<std::string> pending[2];
  const auto flush = [&](bool held) {
    const std::vector<std::string_view> views(pending[held].begin(), pending[held].end());
    if (!views.empty()) use(views, held);
    pending[held].clear();
  };
  data::for_each_document({options.corpus, options.text, options.bad_rows, options.held_out_fraction},
                          [&](std::string_view document, bool held) {
                            if (options.max_documents > 0 && documents >= options.max_documents) return;
                            ++documents;
                            held_out_documents += held;
                            pending[held].emplace_back(document);
                            if (pending[held].size() >= kDocumentsAtOnce) flush(held);
                          });
  flush(false);
  flush(true);
  return {{"documents", documents}, {"held_out_documents", held_out_documents}};
}

void check_sides(const Objective& objective, const AdaptOptions& options) {
  GRAFT_CHECK(data, objective.training->size() > 0, "{}: holds no document to train on; give more text.",
              options.corpus);
  GRAFT_CHECK(data, objective.held_out->size() > 0,
              "{}: {} documents are too few to hold any out; give more text, or raise the fraction that is held "
              "out (adapt.held_out_fraction, retain.corpus_held_out).",
              options.corpus, objective.counts["documents"].get<int64_t>());
}

Objective masked(models::Model& model, const data::Tokenizer& tokenizer, int64_t vocab_size,
                 const AdaptOptions& options, int64_t max_length, uint64_t seed) {
  struct Corpus {
    MaskRules rules;
    features::TextInputs sides[2];
  };
  const auto corpus = std::make_shared<Corpus>(
      Corpus{MaskRules(tokenizer, vocab_size, options), {{model, max_length}, {model, max_length}}});
  Objective objective{.name = "masked_lm", .corpus = corpus};
  objective.counts = read_documents(
      options, [&](const auto& documents, bool held) { pack(tokenizer, documents, max_length, corpus->sides[held]); });
  objective.stream_on = [corpus, seed](models::Model& other, bool held) {
    return std::make_shared<MaskedLm>(other, corpus->sides[held], corpus->rules, seed);
  };
  return objective;
}

Objective causal(const data::Tokenizer& tokenizer, const AdaptOptions& options, int64_t max_length, uint64_t seed,
                 const data::LanguageOptions& language) {
  struct Corpus {
    PackedSequences sides[2];
  };
  const auto corpus = std::make_shared<Corpus>(Corpus{{PackedSequences(max_length), PackedSequences(max_length)}});
  Objective objective{.name = "causal_lm", .corpus = corpus};
  const data::FillInTheMiddle middle(tokenizer, language, seed);
  uint64_t count[2] = {0, 0};
  objective.counts = read_documents(options, [&](const auto& documents, bool held) {
    // Perplexity is measured on texts as they are.
    pack_documents(tokenizer, documents, corpus->sides[held], held ? nullptr : &middle, count[held]);
    count[held] += documents.size();
  });
  objective.stream_on = [corpus](models::Model& other, bool held) {
    return std::make_shared<CausalLm>(other, corpus->sides[held]);
  };
  return objective;
}

}  // namespace

Objective read_objective(const std::string& name, models::Model& model, const data::Tokenizer& tokenizer,
                         int64_t vocab_size, const AdaptOptions& options, int64_t max_length, uint64_t seed,
                         const data::LanguageOptions& language) {
  auto objective = name == "causal_lm" ? causal(tokenizer, options, max_length, seed, language)
                                       : masked(model, tokenizer, vocab_size, options, max_length, seed);
  objective.training = objective.stream_on(model, false);
  objective.held_out = objective.stream_on(model, true);
  check_sides(objective, options);
  objective.counts["sequences"] = objective.training->size();
  objective.title = fmt::format("{} language modelling", name == "causal_lm" ? "causal" : "masked");
  objective.material = fmt::format("{} documents in {} sequences", objective.counts["documents"].get<int64_t>(),
                                   objective.training->size());
  return objective;
}

}  // namespace graft::adapt
