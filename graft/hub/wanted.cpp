#include "graft/hub/wanted.h"

#include <fnmatch.h>

#include <algorithm>
#include <array>
#include <regex>
#include <set>

#include "graft/core/error.h"
#include "graft/core/json.h"
#include "graft/io/file.h"

namespace graft::hub {
namespace {

const std::set<std::string> beside_weights{"config.json",
                                           "graft.json",
                                           "open_clip_config.json",
                                           "generation_config.json",
                                           "tokenizer.json",
                                           "tokenizer_config.json",
                                           "special_tokens_map.json",
                                           "added_tokens.json",
                                           "vocab.txt",
                                           "vocab.json",
                                           "merges.txt",
                                           "spm.model",
                                           "tokenizer.model",
                                           "spiece.model",
                                           "sentencepiece.bpe.model",
                                           "bpe_simple_vocab_16e6.txt.gz",
                                           "chat_template.jinja",
                                           "chat_template.json",
                                           "preprocessor_config.json",
                                           "processor_config.json",
                                           "config.yaml",
                                           "label_map.json",
                                           "head.safetensors"};

/// A single file, or an index with the shards beside it.
struct Weights {
  const char* name;
  const char* shards;  // a pattern; "" for a single file
};
constexpr std::array kOrder{
    Weights{"model.safetensors", ""},
    Weights{"model.safetensors.index.json", "model-[0-9]+-of-[0-9]+\\.safetensors"},
    Weights{"open_clip_model.safetensors", ""},
    Weights{"open_clip_pytorch_model.safetensors", ""},
    Weights{"pytorch_model.bin", ""},
    Weights{"pytorch_model.bin.index.json", "pytorch_model-[0-9]+-of-[0-9]+\\.bin"},
    Weights{"open_clip_pytorch_model.bin", ""},
};

}  // namespace

std::vector<RemoteFile> wanted_files(const std::vector<RemoteFile>& all, const std::vector<std::string>& more,
                                     const std::string& id) {
  std::set<std::string> names;
  for (const auto& file : all)
    if (beside_weights.contains(file.path)) names.insert(file.path);
  bool weights = false;
  for (const auto& choice : kOrder) {
    const auto is_there = [&](const RemoteFile& file) { return file.path == choice.name; };
    if (weights || std::none_of(all.begin(), all.end(), is_there)) continue;
    weights = true;
    names.insert(choice.name);
    const std::regex shard(*choice.shards ? choice.shards : "^$");
    for (const auto& file : all)
      if (std::regex_match(file.path, shard)) names.insert(file.path);
  }
  for (const auto& pattern : more) {
    bool matched = false;
    for (const auto& file : all) {
      if (::fnmatch(pattern.c_str(), file.path.c_str(), FNM_PATHNAME) != 0) continue;
      names.insert(file.path);
      matched = weights = true;
    }
    std::vector<std::string> known;
    for (const auto& file : all) known.push_back(file.path);
    GRAFT_CHECK(usage, matched, "{}: has no file `{}`; it has {}.", id, pattern, listed(known, 30));
  }
  if (!weights) {
    std::vector<std::string> known;
    for (const auto& file : all) known.push_back(file.path);
    fail(Kind::model,
         "{}: has no weights under a name that graft knows (model.safetensors, pytorch_model.bin, their shards, "
         "open_clip's); it has {}. Name the file with --file.",
         id, listed(known, 30));
  }
  std::vector<RemoteFile> result;
  for (const auto& file : all)
    if (names.contains(file.path)) result.push_back(file);
  return result;
}

bool has_weights(const fs::path& folder) {
  std::error_code ignored;
  for (const auto& choice : kOrder) {
    const auto file = folder / choice.name;
    if (!fs::exists(file, ignored)) continue;
    if (!*choice.shards) return true;
    const auto json = Json::parse(io::read_file(file), nullptr, false);
    if (!json.is_object() || !json.contains("weight_map") || !json["weight_map"].is_object()) return false;
    for (const auto& item : json["weight_map"].items())
      if (!item.value().is_string() || !fs::exists(folder / item.value().get<std::string>(), ignored)) return false;
    return true;
  }
  return false;
}

}  // namespace graft::hub
