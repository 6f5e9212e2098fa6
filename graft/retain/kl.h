// The divergence between what a tuned language model says of the next (or masked) token and what its source says, as a
// penalty: over the whole vocabulary, for each token that the loss counts.
// Papers:   Stiennon et al. 2020, https://arxiv.org/abs/2009.01325, sec. 3.4 (KL(tuned || source), the default);
//           Ziegler et al. 2019, https://arxiv.org/abs/1909.08593, sec. 2.2: the coefficient that finds its target,
//           e = clip((KL - target) / target, -0.2, 0.2), coefficient *= 1 + 0.1 e once a step.
// Differs:  the divergence itself, not its estimate from the tokens that were sampled, and with its own gradient.
//           Each phase begins with the recipe's coefficient.
#pragma once

#include <functional>
#include <optional>
#include <utility>

#include "graft/models/language_head.h"
#include "graft/nn/chunked_kl.h"
#include "graft/retain/options.h"
#include "graft/train/loss_term.h"

namespace graft::retain {

using models::Tensor;

/// What the source says at the positions of a step. It is never a second model beside the first: of the source only what
/// lies behind the boundary is kept and fed by what enters the model there; and where the model learns by adapters, the
/// source is the model itself with these switched off.
class Teacher {
 public:
  using Load = std::function<std::shared_ptr<models::Model>()>;
  /// What enters the source's own boundary (it is frozen, so its end) for these examples.
  using Enter =
      std::function<train::Entering(models::Model& source, const std::vector<int64_t>& examples, uint64_t epoch)>;

  enum class Kind {
    adapters_off,  // the model itself
    suffix,        // the source behind the boundary
    whole,         // the model did not begin as the source (adapted before): all of the source, from the inputs
  };

  /// `model` as its training begins, from its source or after it was adapted. `load` gives the source with its language
  /// head; it is called again when the boundary moves, so that nothing is kept that the model has too.
  Teacher(const models::Model& model, Load load, Enter enter);

  Kind kind() const { return kind_; }
  nn::LogitsOf answers(const train::Step& step);
  /// The same from the inputs, on the source as it is loaded whole for this.
  nn::LogitsOf answers(models::Model& source, const std::vector<int64_t>& examples) const;
  std::shared_ptr<models::Model> whole() const;

 private:
  void keep(int64_t block);

  const models::Model& model_;
  Load load_;
  Enter enter_;
  Kind kind_;
  std::shared_ptr<models::Model> source_;  // without the tensors that are not needed
  int64_t from_ = 0;                       // its first block that is there
};

/// Empties the tensors of a frozen source that neither its blocks from `block` on nor its head use.
void keep_behind(models::Model& source, int64_t block);

/// For each position of a stream's examples that counts, the source's most likely tokens.
class StoredAnswers {
 public:
  /// Asks `teacher` once for all of `stream`, some `rows` at a time in an order that hangs on the examples alone.
  StoredAnswers(const Teacher& teacher, const train::Stream& stream, int64_t top_k, nn::KlDirection direction,
                int64_t rows, const std::function<void(int64_t, int64_t)>& progress = {});
  nn::MostLikely of(const std::vector<int64_t>& examples) const;

  int64_t positions() const { return all_.ids.size(0); }
  int64_t bytes() const;
  /// The divergence of the source, its last hidden states disturbed by a tenth, from the source, a mean over some
  /// positions: over the whole vocabulary, and as what is stored gives it.
  double exact = 0, stored = 0;

 private:
  nn::MostLikely all_;
  std::vector<int64_t> start_, count_;  // of each example
};

class Kl final : public train::LossTerm {
 public:
  /// `stored` null: the teacher is asked in each step. The model's head must be a LanguageHead.
  Kl(const KlOptions& options, std::shared_ptr<Teacher> teacher, std::shared_ptr<const StoredAnswers> stored = nullptr);

  std::string name() const override { return "kl"; }
  /// Where the head makes its loss in chunks, the divergence is of the same ones: the logits are computed once.
  void before_head(const train::Step& step) override;
  double take_seconds() override { return std::exchange(seconds_, 0); }
  /// coefficient * mean divergence of the part's tokens; without gradient where the head has seen to that.
  Tensor value(const train::Step& step) override;
  /// Adapts the coefficient; adds nothing.
  double add_gradients(const train::WholeStep& step) override;
  void begin_phase() override;
  /// Of a fixed coefficient, in all phases to come; one that adapts itself finds its own.
  std::optional<double> strengthen(double factor) override;
  /// coefficient, and kl, the mean divergence of an epoch's tokens.
  Json facts() const override;
  Json state() const override;
  void load_state(const Json& state) override;

  double coefficient() const { return now_.coefficient; }

 private:
  nn::ChunkLoss divergence(const train::Step& step);

  struct Now {
    double coefficient = 0;
    double sum = 0, count = 0;              // of the step in progress
    double epoch_sum = 0, epoch_count = 0;  // of the epoch
  };
  KlOptions options_;
  nn::KlDirection direction_;
  std::shared_ptr<Teacher> teacher_;
  std::shared_ptr<const StoredAnswers> stored_;
  Now now_;
  double strengthened_ = 1;  // factor on the recipe's coefficient
  double seconds_ = 0;
  struct Joined {
    double sum = 0;
    int64_t rows = 0;
  };
  std::optional<Joined> joined_;  // of the part in progress
};

nn::KlDirection kl_direction(const std::string& name);

}  // namespace graft::retain
