// The recipe's [lora] section.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace graft::models {

struct LoraOptions {
  int64_t rank = 0;
  double alpha = 16, dropout = 0;
  std::vector<std::string> targets{"all-linear"};
  std::string head = "train";
  bool merge = false;

  template <class Visitor>
  void visit(Visitor&& field) {
    field("rank", rank, "columns of the adapters (Hu et al. 2021); 0: no adapters, the weights themselves learn");
    field("alpha", alpha, "adapters are scaled by alpha / rank");
    field("dropout", dropout, "on what an adapter reads");
    field("targets", targets,
          "names of the linear layers that get one, as in PEFT: the end of the path (q_proj; lm_head, where a language "
          "head is untied, without dropout), or all-linear for all of the backbone's");
    field(
        "head", head,
        "train: the head learns with the adapters; freeze: matrices that came with the source rest (a language head is "
        "as large as the embeddings), its norms and what is fresh learn");
    field("merge", merge, "add the adapters to the weights when the result is written; else they stand beside them");
  }
};

}  // namespace graft::models
