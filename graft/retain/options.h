// The recipe's [retain] section: what the source knew and how it is kept. Parts can be combined; each is off by default.
#pragma once

#include "graft/data/dataset.h"

namespace graft::retain {

struct EwcOptions {
  double strength = 0;
  std::string fisher;
  int64_t examples = 1000;
  std::string labels = "auto";
  bool carry = true;
  double decay = 1;

  template <class Visitor>
  void visit(Visitor&& field) {
    field("strength", strength, "lambda of Kirkpatrick et al. 2017, eq. 3; 0: off");
    field(
        "fisher", fisher,
        "file of `graft retain fisher`; empty: fisher.safetensors in the source's folder, else computed at the start");
    field("examples", examples, "that the Fisher is computed from");
    field("labels", labels,
          "given: those of retain.source_data, or the tokens of retain.corpus; own: drawn from the source's outputs, "
          "and for the carried one from the result's; auto: given where there is source data");
    field("carry", carry, "the result gets a fisher.safetensors of its own, for the next run from it");
    field("decay", decay, "of earlier domains in that file: gamma of Schwarz et al. 2018; 1: all count alike");
  }
};

struct ReplayOptions {
  double fraction = 0;
  int64_t size = 0;
  std::string buffer = "balanced";
  double logits = 0;

  template <class Visitor>
  void visit(Visitor&& field) {
    field("fraction", fraction,
          "part of all examples of an epoch that is drawn from retain.source_data or retain.corpus; 0: off, 0.05 is "
          "usual");
    field("size", size, "keep only this many source examples; 0: all");
    field("buffer", buffer,
          "which are kept: balanced (as many of each label as there can be), reservoir (any, Vitter 1985), herding "
          "(those "
          "whose mean features are closest to their label's, Rebuffi et al. 2017), all");
    field("logits", logits,
          "weight of the squared difference from the logits that the source gave them (Buzzega et al. 2020); 0: off");
  }
};

struct LwfOptions {
  double weight = 0;
  double temperature = 2;

  template <class Visitor>
  void visit(Visitor&& field) {
    field("weight", weight, "of the term; 0: off, 1 as Li and Hoiem 2017");
    field("temperature", temperature, "by which the source's answers are softened (Li and Hoiem 2017: 2)");
  }
};

struct KlOptions {
  double coefficient = 0;
  std::string direction = "tuned_source";
  double target = 0;
  std::string teacher = "auto";
  int64_t top_k = 64;
  bool corpus = false;

  template <class Visitor>
  void visit(Visitor&& field) {
    field("coefficient", coefficient, "of the term; 0: off, 0.1 is usual");
    field("direction", direction,
          "tuned_source: KL(tuned || source), the penalty of RLHF; source_tuned: KL(source || tuned)");
    field("target", target,
          "nats a token that the coefficient is adapted to, as in Ziegler et al. 2019, 2.2; 0: it stays as it is");
    field(
        "teacher", teacher,
        "live: the source behind the boundary (or the model itself without its adapters) is asked in each step; top_k: "
        "its most likely tokens and the mass of the rest are stored once; auto: live, but top_k where the model was "
        "adapted before");
    field("top_k", top_k, "tokens that are stored for each position");
    field("corpus", corpus, "hold it on sequences of retain.corpus too");
  }
};

struct RetainOptions {
  data::DataOptions source_data;
  bool report = true;
  int64_t examples = 500;
  bool curve = false;
  double max_forgetting = -1;
  double strengthen_by = 2;
  std::vector<std::string> strengthened;
  bool interpolate = false;
  double l2sp = 0;
  EwcOptions ewc;
  LwfOptions lwf;
  ReplayOptions replay;
  KlOptions kl;
  std::string corpus;
  double corpus_held_out = 0.1;

  template <class Visitor>
  void visit(Visitor&& field) {
    field("source_data", source_data, "labelled examples of what the source model was trained for");
    field("corpus", corpus,
          "general text, a file or folder as adapt.corpus: what a source with a language head is measured on and "
          "replays");
    field("corpus_held_out", corpus_held_out, "part of its documents that perplexity is measured on");
    field("report", report, "measure what the source loses, after each phase");
    field("curve", curve, "measure it after each epoch too in which blocks learn, not only after each phase");
    field("examples", examples, "most examples, or sequences of retain.corpus, that it is measured on");
    field(
        "max_forgetting", max_forgetting,
        "the budget: where an epoch has lost more of the source's metric (of perplexity: of its logarithm), the terms "
        "are strengthened; at the end, the best point between source and result that lost no more; below 0: no limit");
    field("strengthen_by", strengthen_by,
          "factor by which terms are strengthened after an epoch over the budget; 1: not");
    field("strengthened", strengthened, "which terms: ewc, l2sp, lwf, replay, kl; empty: all that the run has");
    field("interpolate", interpolate,
          "without a limit too: the point that keeps most of the source and is not worse on the new task (Wortsman et "
          "al. "
          "2022)");
    field("l2sp", l2sp,
          "strength of a pull towards the source that is the same for all weights (Li et al. 2018); 0: off");
    field("ewc", ewc, "a pull towards the source, as strong as each weight mattered");
    field("lwf", lwf,
          "the source's answers to the new examples are held while these are learned; needs no source data");
    field("replay", replay, "examples of the source's own task among the new ones");
    field("kl", kl, "language models: what the tuned model says of each token stays near to what the source says");
  }

  /// Something is chosen by what the source loses, or it is followed from epoch to epoch.
  bool chooses() const { return max_forgetting >= 0 || interpolate || (report && curve); }
  bool has_source_data() const {
    return !source_data.path.empty() || !source_data.train.empty() || !source_data.test.empty();
  }
};

}  // namespace graft::retain
