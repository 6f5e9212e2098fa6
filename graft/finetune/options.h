// The recipe's [finetune] section: head only, gradual unfreezing, full. Each default has its source.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace graft::finetune {

struct HeadOptions {
  int64_t min_epochs = 5, epochs = 10, patience = 2;
  std::vector<double> learning_rates{3e-4, 1e-3, 3e-3};
  std::vector<double> weight_decays{0.01, 0.1};
  bool closed_form = true;
  bool verdict = true;

  template <class Visitor>
  void visit(Visitor&& field) {
    field("min_epochs", min_epochs, "epochs before it may stop early");
    field("epochs", epochs, "most epochs (Kumar et al. 2022: the head first, until it has converged)");
    field("patience", patience, "epochs without improvement before it stops; 0: never");
    field("learning_rates", learning_rates, "tried on the stored features; the best by validation metric is kept");
    field("weight_decays", weight_decays, "tried with each learning rate");
    field("closed_form", closed_form,
          "also try a head whose last layer starts at the optimum of ridge regression on the stored features");
    field("verdict", verdict, "measure whether the features are useful: against the majority class and a random copy");
  }
};

struct UnfreezeOptions {
  int64_t max_units = -1;
  int64_t epochs = 5;
  int64_t patience_units = 1;
  double learning_rate = 1e-4;
  double divisor = 2.6;
  double head_learning_rate = 1e-4;
  std::string order = "last_first";

  template <class Visitor>
  void visit(Visitor&& field) {
    field("max_units", max_units, "most units to unfreeze; -1: until the metric plateaus, 0: none");
    field("epochs", epochs, "epochs after each unfreezing");
    field("patience_units", patience_units, "unfreezings without improvement before it stops; 0: never");
    field("learning_rate", learning_rate, "of the unit next to the head");
    field("divisor", divisor,
          "each unit further from the head learns this many times slower (Howard & Ruder 2018, 3.2)");
    field("head_learning_rate", head_learning_rate, "of the head from now on");
    field("order", order,
          "last_first (Howard & Ruder 2018, 3.3), or first_first for a shift in the input (Lee et al. 2022)");
  }
};

struct FullOptions {
  std::string when = "auto";
  int64_t epochs = 5, patience = 2;
  double learning_rate = 1e-5;
  int64_t min_examples = 1000;
  int64_t min_examples_per_group = 100;

  template <class Visitor>
  void visit(Visitor&& field) {
    field("when", when, "auto: by examples and by what unfreezing gained; always; never");
    field("epochs", epochs, "most epochs");
    field("patience", patience, "epochs without improvement before it stops");
    field("learning_rate", learning_rate, "of all parameters (a low rate also keeps what the source knew)");
    field("min_examples", min_examples, "auto: fewer training examples, no full fine-tuning");
    field("min_examples_per_group", min_examples_per_group,
          "auto: fewer examples per group of parameters, none either");
  }
};

struct FinetuneOptions {
  std::string metric;
  double min_improvement = 0.002;
  std::string batch_norm = "source";
  HeadOptions head;
  UnfreezeOptions unfreeze;
  FullOptions full;

  template <class Visitor>
  void visit(Visitor&& field) {
    field("metric", metric,
          "validation metric that decides; empty: by task (accuracy, macro_f1 when a class has over 60 %)");
    field("min_improvement", min_improvement,
          "smaller gains, or gains within half a bootstrap standard error, count as none");
    field("batch_norm", batch_norm,
          "statistics of batch norms: source, which move where a block learns; held: the source's to the end, so that "
          "what it knew stays; target: an estimate on the training examples before phase 1 (AdaBN, Li et al. 2017)");
    field("head", head, "phase 1");
    field("unfreeze", unfreeze, "phase 2");
    field("full", full, "phase 3");
  }
};

}  // namespace graft::finetune
