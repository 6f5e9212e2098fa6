// tokenizer.json documents from the vocabulary files of older published models.
// Source: transformers 4.57, convert_slow_tokenizer.py; the ids of these documents are those of its fast tokenizers.
#pragma once

#include "graft/data/tokenizers/source_files.h"

namespace graft::data {

/// From vocab.txt: BERT and its relatives.
nlohmann::json build_wordpiece(const SourceFiles& source);
/// From vocab.json and merges.txt: RoBERTa, DeBERTa v1, GPT-2.
nlohmann::json build_byte_bpe(const SourceFiles& source);

/// GPT-2's document around a vocabulary: bytes as characters, words split by its pattern.
nlohmann::json byte_bpe_document(nlohmann::json vocabulary, nlohmann::json merges, nlohmann::json added_tokens,
                                 nlohmann::json post_processor, bool add_prefix_space);

/// The entries of "added_tokens", by id: special tokens, added_tokens.json, added_tokens_decoder. Those that the vocabulary
/// lacks follow it in the order of transformers.
nlohmann::json added_tokens(const SourceFiles& source, const nlohmann::json& vocabulary);

/// The id of a role's token in the vocabulary or among the added tokens; Kind::model when there is none.
int64_t required_id(const SourceFiles& source, const std::string& role, const nlohmann::json& vocabulary,
                    const nlohmann::json& added);

/// "[CLS] A [SEP]" and "[CLS] A [SEP] B [SEP]" with type ids 0 and 1.
nlohmann::json pair_template(const std::string& cls, int64_t cls_id, const std::string& sep, int64_t sep_id);

}  // namespace graft::data
