// Learning without forgetting: the source's answers to the new examples are held, softened, while the new labels are learned.
// Paper:  Li and Hoiem 2017, https://arxiv.org/abs/1606.09282, eq. 2 and 3: cross-entropy between the source's softmax and
//         the present one through the old head, both at temperature 2, with weight 1.
// Differs: the old head stays as it was. Answers of other kinds: several labels, cross-entropy of each label's sigmoid at
//         temperature 1, the mean over labels; numbers, the squared error; labels on words, as classes, the mean over
//         tokens. Where the source has no task to answer with, its features are held instead: 1 minus the cosine of the mean
//         features of each example. Answers are those to the plain examples, without augmentation.
#pragma once

#include "graft/retain/answers.h"
#include "graft/retain/options.h"
#include "graft/train/loss_term.h"

namespace graft::retain {

class Lwf final : public train::LossTerm {
 public:
  /// `answers` of the source, whose head is for `task`, to the examples that the model trains on. `old_head` of the source,
  /// frozen; null: the model that trains goes on with the source's head itself.
  Lwf(Answers answers, std::string task, std::shared_ptr<models::Head> old_head, const LwfOptions& options);

  std::string name() const override { return "lwf"; }
  Tensor value(const train::Step& step) override;
  std::optional<double> strengthen(double factor) override { return weight_ *= factor; }
  Json state() const override { return {{"weight", weight_}}; }
  void load_state(const Json& state) override { weight_ = state.at("weight"); }

 private:
  Answers answers_;
  std::string task_;
  std::shared_ptr<models::Head> old_head_;
  double weight_, temperature_;
};

}  // namespace graft::retain
