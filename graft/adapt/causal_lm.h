// Causal language modelling as a stream: each token is predicted from those before it in its own document. A sequence is
// packed from pieces of documents; each piece has its own positions and sees nothing of its neighbours, because to the
// model it is an example of its own (ragged batches know no padding, so packing costs nothing but this list).
#pragma once

#include "graft/adapt/options.h"
#include "graft/data/language/fill_in_the_middle.h"
#include "graft/data/ragged.h"
#include "graft/data/tokenizers/tokenizer.h"
#include "graft/features/text_inputs.h"
#include "graft/train/stream.h"

namespace graft::adapt {

/// Token sequences of about `max_length`, each a row of pieces.
class PackedSequences {
 public:
  explicit PackedSequences(int64_t max_length);
  /// A document that is too long for what is left of a sequence goes on in the next: the first token of a further piece is
  /// the last of the piece before, so that every token but the document's first is predicted exactly once.
  /// `learned` is as long as `ids`: 0 for tokens that are read but not predicted (a question); empty: all are predicted.
  /// `whole`: a document that would be parted but fits a sequence of its own begins one.
  void add(std::span<const int32_t> ids, std::span<const char> learned = {}, bool whole = false);

  int64_t size() const { return static_cast<int64_t>(first_piece_.size()); }
  int64_t max_length() const { return max_length_; }
  int64_t tokens(int64_t sequence) const { return tokens_[sequence]; }
  /// Tokens that the loss counts.
  int64_t predicted(int64_t sequence) const { return predicted_[sequence]; }

  struct Piece {
    std::span<const int32_t> ids;
    std::span<const char> learned;
  };
  std::vector<Piece> pieces(int64_t sequence) const;

 private:
  int64_t max_length_;
  data::Ragged<int32_t> ids_;
  data::Ragged<char> learned_;
  std::vector<int64_t> first_piece_, tokens_, predicted_;
};

/// The id that ends a document: the tokenizer's eos_token. Throws Kind::model when it has none.
int32_t end_token(const data::Tokenizer& tokenizer);

/// Documents with the tokenizer's special tokens, each ended by its end token; those that `middle` chooses are taken apart,
/// in parts that fit a sequence. `first` is the number of the first document, from which it draws.
void pack_documents(const data::Tokenizer& tokenizer, const std::vector<std::string_view>& documents,
                    PackedSequences& into, const data::FillInTheMiddle* middle = nullptr, uint64_t first = 0);

class CausalLm final : public train::Stream {
 public:
  /// `model` has the head of causal_lm; both must outlive this.
  CausalLm(models::Model& model, const PackedSequences& sequences);

  int64_t size() const override { return sequences_.size(); }
  int64_t rows(int64_t example) const override { return sequences_.tokens(example); }
  std::map<std::string, train::Activations> enter(const std::vector<int64_t>& examples, uint64_t epoch) const override;
  double weight(const std::vector<int64_t>& examples, uint64_t epoch) const override;
  /// The head's `loss`: it has the labels, and never makes the whole matrix of logits.
  train::Tensor loss_sum(const train::Outputs& outputs, const std::vector<int64_t>& examples,
                         uint64_t epoch) const override;
  train::Predictions predictions() const override;
  void collect(const train::Outputs&, const std::vector<int64_t>&, train::Predictions&) const override {}

 private:
  models::Model& model_;
  const PackedSequences& sequences_;
};

}  // namespace graft::adapt
