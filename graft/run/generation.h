// Text from a causal model: a batch of prompts of unequal lengths goes on token by token, keys and values kept.
// Papers:  top-k: Fan et al. 2018, https://arxiv.org/abs/1805.04833; top-p: Holtzman et al. 2020,
//          https://arxiv.org/abs/1904.09751
// Source:  the order of transformers' processors: temperature, top-k, top-p.
#pragma once

#include <functional>
#include <set>

#include "graft/data/tokenizers/tokenizer.h"
#include "graft/models/decoder_model.h"
#include "graft/models/source.h"

namespace graft::run {

struct GenerationOptions {
  int64_t max_new_tokens = 128;
  double temperature = 0;
  int64_t top_k = 0;
  double top_p = 1;
  std::vector<std::string> stop;
  int64_t seed = 0;
  int64_t batch_size = 8;

  template <class Visitor>
  void visit(Visitor&& field) {
    field("max_new_tokens", max_new_tokens, "most tokens that are added to a prompt");
    field("temperature", temperature, "0: always the likeliest token; 1: as the model says; more: flatter");
    field("top_k", top_k, "draw among this many likeliest tokens; 0: among all");
    field("top_p", top_p, "draw among the likeliest tokens that make up this share together");
    field("stop", stop, "texts at which generation ends; they are not part of it");
    field("seed", seed, "of the draws");
    field("batch_size", batch_size, "prompts at a time");
  }
};

/// Throws Kind::usage naming all values that cannot be.
void check(const GenerationOptions& options);

struct Generated {
  std::vector<int32_t> ids;  // without the prompt, the end token counted
  std::string text;          // up to the end token or the stop text
  std::string reason;        // end, stop, length
};

/// `part` of the text of prompt `index`, as soon as it is certain: no half characters, no beginning of a stop text.
using OnText = std::function<void(int64_t index, const std::string& part)>;

class Generator {
 public:
  /// Throws Kind::model when the source has no causal language head.
  Generator(models::Model& model, const models::Source& source, const data::Tokenizer& tokenizer,
            const GenerationOptions& options);

  /// `first`: number of the first prompt, for messages and draws: what a prompt becomes does not depend on its batch but
  /// for rounding. Throws Kind::data for a prompt without tokens and one that fills the model's context.
  std::vector<Generated> generate(const std::vector<std::string>& prompts, int64_t first = 0,
                                  const OnText& on_text = {}, bool add_special_tokens = true);

 private:
  models::DecoderModel& model_;
  const data::Tokenizer& tokenizer_;
  GenerationOptions options_;
  std::set<int32_t> ends_;
};

/// The next token of logits (V): the likeliest, or drawn with `uniform` in [0, 1).
int32_t choose(const torch::Tensor& logits, const GenerationOptions& options, double uniform);

}  // namespace graft::run
