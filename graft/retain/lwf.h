// Learning without forgetting: the source's answers to the new examples are held, softened, while the new labels are learned.
// Paper:  Li and Hoiem 2017, https://arxiv.org/abs/1606.09282, eq. 2 and 3: cross-entropy between the source's softmax and
//         the present one through the old head, both at temperature 2, with weight 1.
// Differs: the old head stays as it was. Where the source has no classes to answer with, its features are held instead: 1
//         minus the cosine of the mean features of each example. Answers are those to the plain examples, without augmentation.
#pragma once

#include "graft/features/inputs.h"
#include "graft/retain/options.h"
#include "graft/train/loss_term.h"

namespace graft::retain {

using models::Tensor;

class Lwf final : public train::LossTerm {
 public:
  /// Asks `source` once for its answers to all examples of `inputs`, which the model then trains on. `reads` are those of
  /// the head that trains; where the source's head reads other places, or is no classifier (`classes` false), its features
  /// are taken. `own_head`: the model that trains has the source's head itself, else the source's is used, frozen.
  Lwf(models::Model& source, const features::Inputs& inputs, const models::Reads& reads, bool classes, bool own_head,
      const LwfOptions& options, int64_t capture_rows = 4096);

  std::string name() const override { return "lwf"; }
  Tensor value(const train::Step& step) override;
  bool holds_answers() const { return logits_.defined(); }

 private:
  std::shared_ptr<models::Head> old_head_;  // null: the model's own
  double weight_, temperature_;
  Tensor logits_, features_;  // (n, K) or (n, C), of the source
};

}  // namespace graft::retain
