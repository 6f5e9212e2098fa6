// Masked language modelling as a stream: 15 % of the tokens are chosen; of these 80 % become the mask, 10 % a random
// token, 10 % stay (Devlin et al. 2019, sec. 3.1). Masks are drawn anew each epoch (Liu et al. 2019, sec. 4.1) from
// the example's number and the epoch alone, so batches and resumption do not change them.
#pragma once

#include "graft/adapt/options.h"
#include "graft/data/tokenizers/tokenizer.h"
#include "graft/features/text_inputs.h"
#include "graft/train/stream.h"

namespace graft::adapt {

/// What masking needs of a vocabulary. Throws Kind::model when the tokenizer has no mask token.
struct MaskRules {
  MaskRules(const data::Tokenizer& tokenizer, int64_t vocab_size, const AdaptOptions& options);
  int32_t mask_id;
  int64_t vocab_size;           // random tokens are drawn below it
  std::vector<bool> special;    // by id: never chosen, never drawn
  std::vector<bool> continues;  // by id: goes on with the word before it
  double probability;
  bool whole_words;
};

struct Masked {
  std::vector<int32_t> ids;        // with masks
  std::vector<int32_t> positions;  // chosen, ascending
  std::vector<int32_t> labels;     // what stood there
};
Masked mask(std::span<const int32_t> ids, const MaskRules& rules, uint64_t seed);

class MaskedLm final : public train::Stream {
 public:
  MaskedLm(models::Model& model, const features::TextInputs& sequences, const MaskRules& rules, uint64_t seed);

  int64_t size() const override { return sequences_.size(); }
  int64_t rows(int64_t example) const override { return sequences_.length(example); }
  std::map<std::string, train::Activations> enter(const std::vector<int64_t>& examples, uint64_t epoch) const override;
  std::optional<train::Reads> reads(const std::vector<int64_t>& examples, uint64_t epoch) const override;
  double weight(const std::vector<int64_t>& examples, uint64_t epoch) const override;
  train::Tensor loss_sum(const train::Outputs& outputs, const std::vector<int64_t>& examples,
                         uint64_t epoch) const override;
  train::Predictions predictions() const override;
  void collect(const train::Outputs&, const std::vector<int64_t>&, train::Predictions&) const override {}

 private:
  /// Of each of these, in their order. A step asks for its examples several times, whole or in parts: drawn once.
  std::vector<const Masked*> masked(const std::vector<int64_t>& examples, uint64_t epoch) const;

  models::Model& model_;
  const features::TextInputs& sequences_;
  const MaskRules& rules_;
  uint64_t seed_;
  mutable uint64_t drawn_epoch_ = 0;
  mutable std::map<int64_t, Masked> drawn_;  // of one batch
};

/// Documents one after another, each with the tokenizer's special tokens, cut and joined into sequences of `max_length`
/// as RoBERTa's full-sentences packing does: pieces of [CLS] ... [SEP]; a short document shares its sequence with the next.
void pack(const data::Tokenizer& tokenizer, const std::vector<std::string_view>& documents, int64_t max_length,
          features::TextInputs& into);

}  // namespace graft::adapt
