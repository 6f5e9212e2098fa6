// C interface of the Hugging Face `tokenizers` crate: text to ids and back, from a tokenizer.json document.
// Why: the crate decides the ids of the published models, so they are exact by construction.
// Functions that return `char*` return NULL for success and else a sentence, to be freed with tokenizers_c_free_text.
// Everything may be called from several threads at once.
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct TokenizersC TokenizersC;

/// UTF-8, not terminated; may hold NUL.
typedef struct {
  const char* data;
  size_t size;
} TokenizersCText;

enum { TOKENIZERS_C_LONGEST_FIRST = 0, TOKENIZERS_C_ONLY_FIRST = 1, TOKENIZERS_C_ONLY_SECOND = 2 };

typedef struct {
  int64_t max_length;     // special tokens counted; below 0: no truncation
  uint8_t strategy;       // TOKENIZERS_C_...
  uint8_t truncate_left;  // drop from the beginning instead of the end
  uint8_t add_special_tokens;
  uint8_t details;  // fill offsets, special, words
} TokenizersCOptions;

/// Row i has the tokens [starts[i], starts[i + 1]).
typedef struct {
  size_t rows;
  size_t total;
  const uint64_t* starts;
  const int32_t* ids;
  const int32_t* type_ids;
  const int32_t* offsets;  // two per token, in Unicode characters; NULL without details
  const uint8_t* special;  // NULL without details
  const int32_t* words;    // -1 for tokens outside the text; NULL without details
  void* owner;
} TokenizersCEncodings;

/// Truncation and padding of the document are ignored.
char* tokenizers_c_from_json(TokenizersCText json, TokenizersC** out);
void tokenizers_c_free(TokenizersC* tokenizer);

/// `pairs` is NULL or has `rows` entries. More than one row: on all cores.
char* tokenizers_c_encode(const TokenizersC* tokenizer, const TokenizersCText* texts, const TokenizersCText* pairs,
                          size_t rows, const TokenizersCOptions* options, TokenizersCEncodings* out);
void tokenizers_c_free_encodings(TokenizersCEncodings* encodings);

/// `text` is to be freed; a NUL in it becomes U+FFFD.
char* tokenizers_c_decode(const TokenizersC* tokenizer, const uint32_t* ids, size_t count, uint8_t skip_special_tokens,
                          char** text);
typedef struct {
  size_t vocab_size;               // special tokens and the 256 bytes counted
  uint64_t min_frequency;          // pairs that are met less often are not merged
  const TokenizersCText* special;  // they get the first ids
  size_t special_count;
} TokenizersCTraining;

/// Learns a byte-level BPE: `json` is a tokenizer.json with an empty BPE model, of which the pre-tokenizer splits the texts.
/// `document`, the tokenizer.json with vocabulary and merges, is to be freed. The same texts give the same bytes.
char* tokenizers_c_train_bpe(TokenizersCText json, const TokenizersCText* texts, size_t rows,
                             const TokenizersCTraining* options, char** document);

/// With added tokens: one more than the largest id.
size_t tokenizers_c_vocab_size(const TokenizersC* tokenizer);
/// -1 when there is no such token.
int64_t tokenizers_c_token_to_id(const TokenizersC* tokenizer, TokenizersCText token);
/// NULL when there is no such id.
char* tokenizers_c_id_to_token(const TokenizersC* tokenizer, uint32_t id);
/// Special tokens that are added to a text, or to a pair.
size_t tokenizers_c_added_tokens(const TokenizersC* tokenizer, uint8_t pair);
void tokenizers_c_free_text(char* text);

/// A chat template: the Jinja program of a published tokenizer, as transformers runs it. `now`: what strftime_now shows, in
/// seconds since 1970.
typedef struct ChatTemplateC ChatTemplateC;
char* tokenizers_c_chat_template(TokenizersCText source, int64_t now, ChatTemplateC** out);
void tokenizers_c_chat_template_free(ChatTemplateC* chat_template);
/// Whether it has `{% generation %}` blocks; what they hold then stands between U+FDD0 and U+FDD1 in the text.
uint8_t tokenizers_c_chat_marks_answers(const ChatTemplateC* chat_template);
/// `context`: a JSON object of the variables. `text` is to be freed.
char* tokenizers_c_chat_render(const ChatTemplateC* chat_template, TokenizersCText context, char** text);

#ifdef __cplusplus
}
#endif
