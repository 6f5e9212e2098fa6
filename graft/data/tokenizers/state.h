// What a Tokenizer holds; shared by tokenizer.cpp, export.cpp and the engines.
#pragma once

#include <memory>

#include "graft/data/tokenizers/source_files.h"
#include "graft/data/tokenizers/tokenizer.h"

namespace graft::data {

/// What turns text into ids: the `tokenizers` crate or the SentencePiece library.
class TokenizerEngine {
 public:
  virtual ~TokenizerEngine() = default;

  /// Special tokens that are added to a text, or to a pair.
  virtual int64_t added_tokens(bool pair) const = 0;
  /// On all cores; `pairs` is empty or as long as `texts`, max_length leaves room for the special tokens. A text that
  /// cannot be encoded is left out: the result then holds a sentence about the first.
  struct Result {
    std::vector<Encoding> encodings;
    std::string problem;
  };
  virtual Result encode(const std::vector<std::string_view>& texts, const std::vector<std::string_view>& pairs,
                        const Tokenizer::Options& options, bool truncate_left) const = 0;

  virtual int64_t vocab_size() const = 0;  // one more than the largest id
  virtual std::optional<int32_t> id_of(const std::string& token) const = 0;
  virtual std::optional<std::string> token_of(int32_t id) const = 0;
  /// Throws Kind::model, beginning with `where`, for ids that cannot be decoded.
  virtual std::string decode(const std::string& where, const std::vector<int32_t>& ids,
                             bool skip_special_tokens) const = 0;
};

struct Tokenizer::State {
  SourceFiles source;
  std::string document;    // what decides the ids: the tokenizer.json in force, or the SentencePiece model
  nlohmann::json outline;  // tokenizer.json without its model; of a SentencePiece model its added tokens alone
  std::unique_ptr<const TokenizerEngine> engine;
};

/// The crate on a tokenizer.json. Throws Kind::model with its words when it refuses the document.
std::unique_ptr<const TokenizerEngine> make_crate_engine(const std::string& document, const SourceFiles& source);

/// The file of a SentencePiece model in the folder (spm.model, tokenizer.model), "" when there is none.
std::string sentencepiece_file(const SourceFiles& source);

struct SentencePieceParts {
  std::unique_ptr<const TokenizerEngine> engine;
  nlohmann::json added_tokens;
};
/// Throws Kind::model: a file that is no SentencePiece model, a tokenizer class whose rules are not known.
SentencePieceParts make_sentencepiece_engine(const SourceFiles& source);

}  // namespace graft::data
