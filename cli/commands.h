// The commands that the launcher answers by itself, without libtorch.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace graft::cli {

struct PullArguments {
  std::string id, revision;  // "": what the catalogue says, else main
  std::vector<std::string> files;
  std::string recipe;  // whose sources.toml is known too
  bool json = false, quiet = false;
};
/// graft pull: a model of the hub into the shared cache, or a source of the catalogue from elsewhere. Returns the exit code.
int pull_command(const PullArguments& arguments);

struct SourcesArguments {
  std::string id, modality, domain, licence, max_size, recipe, data;
  bool json = false;
};
/// graft sources: the selection tree, narrowed; with an id everything that is known of it.
int sources_command(const SourcesArguments& arguments);

struct TokenizerTrainingArguments {
  std::vector<std::string> corpora, special_tokens;
  std::string text = "text", out;
  int64_t vocab_size = 8192;
  bool json = false;
};
/// graft tokenize --train: learns a byte-level BPE from texts and writes its files. Returns the exit code.
int train_tokenizer_command(const TokenizerTrainingArguments& arguments);

}  // namespace graft::cli
