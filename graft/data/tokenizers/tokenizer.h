// Text to ids, from the files that a published model has: by the Hugging Face `tokenizers` crate, or by SentencePiece.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "graft/core/json.h"

namespace graft::data {

struct Encoding {
  std::vector<int32_t> ids;
  std::vector<int32_t> type_ids;
  /// Per token [begin, end) in Unicode characters of the text (of the pair for the second part); [0, 0] for added special tokens.
  std::vector<std::pair<int32_t, int32_t>> offsets;  // empty unless asked for
  /// Per token: 1 for special tokens that the template added.
  std::vector<uint8_t> special;  // empty unless asked for
  /// Per token: index of its pre-token ("word") in the text, -1 for special tokens.
  std::vector<int32_t> words;  // empty unless asked for
};

class Tokenizer {
 public:
  /// `folder` holds tokenizer.json, or vocab.txt, or vocab.json and merges.txt, or a SentencePiece model (spm.model,
  /// tokenizer.model): the first of these that is there decides. `tokenizer_config.json`, `special_tokens_map.json` and
  /// `config.json` (model_type) give the settings, their published defaults the rest.
  /// Throws Kind::model: nothing found (says what was looked for), a broken file (name and position).
  static Tokenizer load(const std::filesystem::path& folder);

  /// What a pair that is too long loses: from its longer text, or from one of them.
  enum class Truncation { longest_first, only_first, only_second };

  struct Options {
    std::optional<int64_t> max_length;  // special tokens counted
    Truncation truncation = Truncation::longest_first;
    bool add_special_tokens = true;
    bool details = false;  // fill offsets, special and words
  };

  /// Throws Kind::usage when max_length leaves no room for the special tokens, Kind::data for text that is not UTF-8.
  Encoding encode(std::string_view text, const Options& options) const;
  Encoding encode(std::string_view text, std::string_view pair, const Options& options) const;
  /// On all cores. `pairs` is empty or as long as `texts`.
  std::vector<Encoding> encode_batch(const std::vector<std::string_view>& texts,
                                     const std::vector<std::string_view>& pairs, const Options& options) const;

  /// One more than the largest id, added tokens counted; the embedding must have at least that many rows.
  int64_t vocab_size() const;
  /// The id of a token, nullopt when there is none.
  std::optional<int32_t> id_of(const std::string& token) const;
  std::string token_of(int32_t id) const;
  std::string decode(const std::vector<int32_t>& ids, bool skip_special_tokens) const;
  /// Ids of special tokens as the files name them ("mask_token" -> 103); empty optional when there is none.
  std::optional<int32_t> special_id(
      const std::string& role) const;  // cls_token sep_token mask_token pad_token unk_token bos_token eos_token
  /// All of these that there are: {"bos_token": "<s>", ...}, as chat templates read them.
  Json special_tokens() const;
  /// The Jinja program of chat_template.jinja or tokenizer_config.json (the one named `default` of several), "" for none.
  std::string chat_template() const;
  /// Length limit from tokenizer_config.json when it is a real one (below 1e6), else nullopt.
  std::optional<int64_t> model_max_length() const;
  /// The files that make this tokenizer, to be copied beside an exported model, plus what must be written:
  /// name -> content. Always has tokenizer.json (or the SentencePiece model) and a tokenizer_config.json with
  /// tokenizer_class, model_max_length and, where it applies, do_lower_case, so that AutoTokenizer gives the same ids.
  std::vector<std::pair<std::string, std::string>> export_files(int64_t model_max_length) const;
  /// SHA-256 of what decides the ids; part of store keys.
  std::string fingerprint() const;

 private:
  struct State;
  std::shared_ptr<const State> state_;
};

}  // namespace graft::data
