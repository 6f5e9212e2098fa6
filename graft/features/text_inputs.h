// Tokenized text as inputs of a text chain.
#pragma once

#include "graft/data/ragged.h"
#include "graft/data/tokenizers/tokenizer.h"
#include "graft/features/inputs.h"
#include "graft/models/model.h"

namespace graft::features {

class TextInputs final : public Inputs {
 public:
  /// `model` counts the positions; it must outlive this.
  TextInputs(const models::Model& model, int64_t max_length);

  /// Tokenizes on all cores, in pieces, so that memory holds ids and not encodings. `pairs` may be empty.
  void add(const data::Tokenizer& tokenizer, const data::Ragged<char>& texts, const data::Ragged<char>& pairs);
  /// Ids that are already made (packed documents).
  void add(std::span<const int32_t> ids, std::span<const int32_t> type_ids);

  int64_t size() const override { return ids_.size(); }
  int64_t length(int64_t example) const override { return ids_.length(example); }
  models::Activations batch(const std::string& chain, const std::vector<int64_t>& examples) const override;
  std::string hash() const override;

  std::span<const int32_t> ids(int64_t example) const { return ids_[example]; }
  /// Per word of an example the place of its first token, -1 where it was cut off; filled when `keep_words` was set before add().
  const data::Ragged<int32_t>& first_tokens() const { return first_tokens_; }
  bool keep_words = false;
  int64_t truncated = 0;  // texts that were longer than max_length

 private:
  const models::Model& model_;
  int64_t max_length_;
  data::Ragged<int32_t> ids_, type_ids_, first_tokens_;
};

/// A batch of a text chain from ids and types per example.
models::Activations text_batch(const models::Model& model, const std::vector<std::span<const int32_t>>& ids,
                               const std::vector<std::span<const int32_t>>& type_ids);

}  // namespace graft::features
