// The files of a published tokenizer and what they say about its kind and special tokens.
// Source: transformers 4.57, tokenization_utils_base.py (order of the files) and the classes' own defaults.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "graft/core/json.h"

namespace graft::data {

/// Defaults of a tokenizer class of transformers, for what the files leave unsaid.
struct TokenizerFamily {
  std::string name;             // bert, roberta, deberta, gpt2, deberta-v2, llama; "" when unknown
  std::string tokenizer_class;  // as AutoTokenizer knows it
  std::vector<std::pair<std::string, std::string>> roles;  // role -> token
  bool mask_eats_blank = false;                            // lstrip of the mask token
};

struct SourceFiles {
  std::filesystem::path folder;
  std::map<std::string, std::string> files;  // name -> content, of those that make a tokenizer
  Json config = Json::object();              // tokenizer_config.json
  Json special_map = Json::object();         // special_tokens_map.json
  std::string model_type;                    // of config.json, "" when there is none
  TokenizerFamily family;

  /// Settings of tokenizer_config.json; null counts as silent.
  std::string text_setting(const std::string& name, const std::string& otherwise) const;
  bool flag(const std::string& name, bool otherwise) const;
  bool has(const std::string& name) const { return files.contains(name); }
  /// The token of a role, "" when there is none.
  std::string token(const std::string& role) const;
  /// The same with the flags the files or the family give: content, lstrip, rstrip, single_word, normalized.
  Json added_token(const std::string& role) const;
};

/// Throws Kind::model for a missing folder and for JSON that cannot be parsed (file and position).
SourceFiles read_source_files(const std::filesystem::path& folder);

inline const std::vector<std::string> kTokenRoles = {"bos_token", "eos_token", "unk_token", "sep_token",
                                                     "pad_token", "cls_token", "mask_token"};

/// Vocabularies are parsed without order: the ordered JSON looks keys up one by one.
nlohmann::json parse_vocabulary(const SourceFiles& source, const std::string& name);

}  // namespace graft::data
