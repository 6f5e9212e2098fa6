// The recipe's [train] section: what all phases share.
#pragma once

#include <cstdint>
#include <string>

namespace graft::train {

struct TrainOptions {
  int64_t batch_size = 32;            // Devlin et al. 2019, sec. A.3
  int64_t micro_batch_tokens = 8192;  // more are accumulated, with the same gradient
  double warmup_fraction = 0.1;       // Devlin et al. 2019, sec. A.2
  double weight_decay = 0.01;         // the same; none on biases and norms
  double max_gradient_norm = 1.0;
  std::string precision = "float32";
  std::string weights = "float32";
  bool activation_checkpointing = false;
  std::string device = "auto";
  int64_t threads = 0;
  double checkpoint_seconds = 20;

  bool bf16() const { return precision == "bfloat16"; }

  template <class Visitor>
  void visit(Visitor&& field) {
    field("batch_size", batch_size, "examples of one step (Devlin et al. 2019, A.3)");
    field("micro_batch_tokens", micro_batch_tokens,
          "a step with more tokens is computed in parts, with the same gradient");
    field("warmup_fraction", warmup_fraction,
          "part of a phase in which the learning rate rises (Devlin et al. 2019, A.2)");
    field("weight_decay", weight_decay, "AdamW's, none on biases and norms (Devlin et al. 2019, A.2)");
    field("max_gradient_norm", max_gradient_norm, "gradients are scaled to this norm; 0 for never");
    field("precision", precision, "float32, or bfloat16 for autocast");
    field("weights", weights,
          "how matrices are kept: float32; bfloat16, of what trains with float32 masters in the optimizer; or "
          "bfloat16_stochastic, without masters, rounded up or down by chance (Gupta et al. 2015)");
    field("activation_checkpointing", activation_checkpointing,
          "keep what enters a block and compute the block again for its gradient: less memory, a third more time");
    field("device", device, "cpu; cuda, or cuda:1 for the second GPU; auto: the first GPU where one can be used");
    field("threads", threads, "0: as many as the machine or the container really has");
    field("checkpoint_seconds", checkpoint_seconds, "at the end of an epoch, save when the last saving is longer ago");
  }
};

}  // namespace graft::train
