// Lookup order as in transformers: safetensors before .bin, one file before shards.
#include "graft/io/checkpoint.h"

#include <algorithm>
#include <array>
#include <set>

#include "graft/core/hash.h"
#include "graft/io/safetensors.h"
#include "graft/io/torch_archive.h"

namespace graft::io {
namespace {

// The last is self-distillation's (DINO): the average that its authors publish, beside the student.
constexpr std::array outer_dictionaries{"state_dict", "model_state_dict", "model", "teacher"};
// Before every key, put there by what was wrapped around the network in training.
const std::array<std::string, 2> wrappers{"module.", "_orig_mod."};
const std::string backbone = "backbone.";

// What training scripts leave beside the weights.
const std::set<std::string> not_weights{"training_args.bin", "optimizer.pt", "optimizer.bin", "scheduler.pt",
                                        "scheduler.bin",     "scaler.pt",    "rng_state.pth"};

bool is_safetensors(const fs::path& path) { return path.extension() == ".safetensors"; }

/// What stands behind a prefix, without it.
TensorMap below(const std::string& prefix, TensorMap& tensors) {
  TensorMap inner;
  for (auto& [path, view] : tensors)
    if (path.starts_with(prefix)) inner.emplace(path.substr(prefix.size()), std::move(view));
  return inner;
}

bool any_below(const std::string& prefix, const TensorMap& tensors) {
  const auto found = tensors.lower_bound(prefix);
  return found != tensors.end() && found->first.starts_with(prefix);
}

/// Takes off what was wrapped around the network; of self-supervised training's files also the name that it has there.
void take_off_wrappers(Checkpoint& checkpoint) {
  const auto without = [](const std::string& prefix) {
    return [&prefix](const std::string& key) { return key.starts_with(prefix) ? key.substr(prefix.size()) : key; };
  };
  const auto around_all = [&](const std::string& prefix) {
    const auto& tensors = checkpoint.tensors;
    return std::all_of(tensors.begin(), tensors.end(), [&](const auto& t) { return t.first.starts_with(prefix); });
  };
  while (!checkpoint.tensors.empty()) {
    const auto found = std::find_if(wrappers.begin(), wrappers.end(), around_all);
    if (found == wrappers.end()) break;
    checkpoint.wrapper += *found;
    checkpoint.rename(without(*found));
  }
  if (any_below(backbone, checkpoint.tensors)) checkpoint.rename(without(backbone));
}

/// The tensors of the outer dictionary that holds the weights, without its name; all of them where there is none.
TensorMap unwrapped(TorchArchive archive) {
  for (const std::string name : outer_dictionaries) {
    if (std::find(archive.sections.begin(), archive.sections.end(), name) == archive.sections.end()) continue;
    auto inner = below(name + ".", archive.tensors);
    // A trainer's dictionary inside a dictionary: {"model": {"state_dict": ...}}.
    return any_below("state_dict.", inner) ? below("state_dict.", inner) : inner;
  }
  return std::move(archive.tensors);
}

/// Adds the file to those that are mapped where it is one.
TensorMap read_weight_file(const fs::path& path, Checkpoint& into) {
  if (!is_safetensors(path)) return unwrapped(read_torch_archive(path));
  auto read = read_safetensors(path);
  into.mapped.push_back(read.file);
  return std::move(read.tensors);
}

Checkpoint read_single(const fs::path& path) {
  Checkpoint checkpoint{.files = {path}, .safe = is_safetensors(path)};
  checkpoint.tensors = read_weight_file(path, checkpoint);
  GRAFT_CHECK(model, !checkpoint.tensors.empty(), "{}: it holds no tensor; is it the file of weights?", path.string());
  return checkpoint;
}

std::map<std::string, std::string> read_index(const fs::path& path) {
  const MappedFile file(path, Kind::model);
  const auto json = nlohmann::json::parse(file.bytes(), nullptr, false);
  const bool is_index =
      json.is_object() && json.contains("weight_map") && json["weight_map"].is_object() && !json["weight_map"].empty();
  GRAFT_CHECK(model, is_index,
              "{}: expected JSON with a `weight_map` from tensors to files; the file is damaged, fetch it again",
              path.string());
  std::map<std::string, std::string> shards;
  for (const auto& item : json["weight_map"].items()) {
    const auto shard = item.value().is_string() ? item.value().get<std::string>() : "";
    GRAFT_CHECK(model, !shard.empty() && shard != ".." && shard.find('/') == std::string::npos,
                "{}: tensor `{}` is said to be in {}, expected the name of a file in the same folder", path.string(),
                item.key(), item.value().dump());
    shards[item.key()] = shard;
  }
  return shards;
}

/// "model-00002-of-00004.safetensors" counts its siblings: each must be named by the index.
void check_numbering(const std::set<std::string>& shards, const fs::path& index) {
  const auto& first = *shards.begin();
  const auto of = first.find("-of-");
  if (of == std::string::npos || of < 6 || first.size() < of + 9) return;
  const auto is_number = [&](size_t at) {
    return first.substr(at, 5).find_first_not_of("0123456789") == std::string::npos;
  };
  if (!is_number(of - 5) || !is_number(of + 4)) return;
  for (int i = 1; i <= std::stoi(first.substr(of + 4, 5)); ++i) {
    const auto expected = first.substr(0, of - 5) + fmt::format("{:05}", i) + first.substr(of);
    GRAFT_CHECK(model, shards.contains(expected),
                "{}: shard {} is missing from the index, which names {}; fetch the index again", index.string(),
                expected, listed({shards.begin(), shards.end()}));
  }
}

void add_shard(Checkpoint& checkpoint, std::map<std::string, std::string>& origin, const fs::path& path) {
  for (auto& [name, view] : read_weight_file(path, checkpoint)) {
    const auto [found, is_new] = origin.emplace(name, path.filename().string());
    GRAFT_CHECK(model, is_new, "{}: tensor `{}` is also in {}; the shards do not belong together, fetch them again",
                path.string(), name, found->second);
    checkpoint.tensors.emplace(name, std::move(view));
  }
  checkpoint.files.push_back(path);
}

Checkpoint read_sharded(const fs::path& index) {
  const auto expected = read_index(index);
  std::set<std::string> shards;
  for (const auto& [name, shard] : expected) shards.insert(shard);
  check_numbering(shards, index);

  Checkpoint checkpoint{.files = {index}, .safe = is_safetensors(*shards.begin())};
  std::map<std::string, std::string> origin;
  for (const auto& shard : shards) {
    const auto path = index.parent_path() / shard;
    GRAFT_CHECK(model, fs::exists(path),
                "{}: the shard {} is not in the folder; the download is incomplete, fetch it again", index.string(),
                shard);
    add_shard(checkpoint, origin, path);
  }
  for (const auto& [name, shard] : expected) {
    const auto found = origin.find(name);
    GRAFT_CHECK(model, found != origin.end() && found->second == shard,
                "{}: tensor `{}` should be in {}, it is {}; fetch the files again", index.string(), name, shard,
                found == origin.end() ? "in no shard" : "in " + found->second);
  }
  return checkpoint;
}

std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

std::vector<std::string> with_extension(const std::vector<std::string>& names,
                                        const std::set<std::string>& extensions) {
  std::vector<std::string> found;
  for (const auto& name : names) {
    if (extensions.contains(fs::path(name).extension().string()) && !not_weights.contains(name)) found.push_back(name);
  }
  return found;
}

Checkpoint read_folder(const fs::path& folder) {
  for (const std::string stem : {"model.safetensors", "pytorch_model.bin"}) {
    if (fs::exists(folder / stem)) return read_single(folder / stem);
    if (fs::exists(folder / (stem + ".index.json"))) return read_sharded(folder / (stem + ".index.json"));
  }
  const auto names = names_in(folder);
  for (const auto& extensions :
       {std::set<std::string>{".safetensors"}, std::set<std::string>{".bin", ".pt", ".pth", ".th"}}) {
    const auto found = with_extension(names, extensions);
    if (found.size() == 1) return read_single(folder / found[0]);
    GRAFT_CHECK(model, found.empty(), "{}: several files may be the weights: {}; name one of them", folder.string(),
                listed(found));
  }
  fail(Kind::model,
       "{}: no weights found (model.safetensors, pytorch_model.bin, their indexes, or one *.safetensors, *.bin, *.pt, "
       "*.pth or *.th); the folder has {}",
       folder.string(), names.empty() ? "nothing" : listed(names));
}

}  // namespace

std::string Checkpoint::name_in_file(const std::string& key) const {
  const auto found = names.find(key);
  return found == names.end() ? wrapper + key : found->second;
}

void Checkpoint::rename(const std::function<std::string(const std::string&)>& renamed) {
  TensorMap after;
  std::map<std::string, std::string> known;
  for (auto& [key, view] : tensors) {
    const auto old_name = names.find(key);
    const auto file_name = old_name == names.end() ? key : old_name->second;
    auto name = renamed(key);
    if (after.contains(name) || (name != key && tensors.contains(name))) name = key;  // both are there: another tensor
    if (name != file_name) known[name] = file_name;
    after.emplace(name, std::move(view));
  }
  tensors = std::move(after);
  names = std::move(known);
}

Checkpoint read_checkpoint(const fs::path& path) {
  GRAFT_CHECK(model, fs::exists(path),
              "{}: no such file or folder; fetch the model with `graft pull` or correct the path", path.string());
  auto checkpoint = fs::is_directory(path)                              ? read_folder(path)
                    : path.filename().string().ends_with(".index.json") ? read_sharded(path)
                                                                        : read_single(path);
  take_off_wrappers(checkpoint);
  return checkpoint;
}

std::string checkpoint_hash(const Checkpoint& checkpoint) {
  auto files = checkpoint.files;
  std::sort(files.begin(), files.end(),
            [](const fs::path& a, const fs::path& b) { return a.filename() < b.filename(); });
  Sha256 hash;
  for (const auto& path : files) {
    const MappedFile file(path, Kind::model);
    hash.update(fmt::format("{}\n{}\n", path.filename().string(), file.bytes().size()));
    hash.update(file.bytes());
  }
  return hash.hex();
}

}  // namespace graft::io
