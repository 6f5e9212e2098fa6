// A tokenizer of one's own: byte-level BPE learned from texts, for a model that is trained from scratch.
// Paper:   Sennrich et al. 2016, https://arxiv.org/abs/1508.07909; on bytes: Radford et al. 2019 (GPT-2).
// Source:  the `tokenizers` crate's BpeTrainer with GPT-2's pre-tokenizer; the files load in transformers.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace graft::data {

struct TokenizerTraining {
  int64_t vocab_size = 8192;                // ids in all: special tokens, the 256 bytes, merges
  int64_t min_frequency = 2;                // pairs that are met less often are not merged
  std::string end_token = "<|endoftext|>";  // ends documents, and begins and pads where that is asked for; id 0
  std::vector<std::string> special_tokens;  // further ones, in order: <fim_prefix>, ...
};

/// The files of a tokenizer (name, content), learned from `texts`: tokenizer.json and tokenizer_config.json. Any text is
/// encoded and decoded without loss. The same texts in the same order give the same bytes.
/// Few texts give fewer ids than were asked for. Throws Kind::usage for a vocabulary that does not hold the bytes and the
/// special tokens and for an empty or repeated special token; Kind::data for no texts and for a text that is not UTF-8.
std::vector<std::pair<std::string, std::string>> train_tokenizer(const std::vector<std::string>& texts,
                                                                 const TokenizerTraining& options);

}  // namespace graft::data
