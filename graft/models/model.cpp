#include "graft/models/model.h"

#include <algorithm>

#include "graft/core/error.h"

namespace graft::models {
namespace {

bool starts_with_any(const std::string& key, const std::vector<std::string>& prefixes) {
  return std::any_of(prefixes.begin(), prefixes.end(), [&](const auto& prefix) { return key.starts_with(prefix); });
}

template <class Items>
void append_once(torch::OrderedDict<std::string, Tensor>& all, const Items& items) {
  for (const auto& item : items) {
    const auto same = [&](const auto& other) {
      return other.value().unsafeGetTensorImpl() == item.value().unsafeGetTensorImpl();
    };
    if (std::none_of(all.begin(), all.end(), same)) all.insert(item.key(), item.value());
  }
}

/// Sets the mode of a module and, before them, not of its children: they follow in named_modules().
void set_mode(torch::nn::Module& module, bool training) {
  if (module.is_training() != training) module.train(training);
}

}  // namespace

const Chain& Model::chain(const std::string& name) const {
  for (const auto& chain : chains)
    if (chain.name == name) return chain;
  GRAFT_ASSERT(false, "no chain of that name");
  return chains.front();
}

std::set<std::string> Model::all_groups() const {
  std::set<std::string> all{"head"};
  for (const auto& chain : chains)
    for (const auto& block : chain.blocks) all.insert(block.groups.begin(), block.groups.end());
  return all;
}

Activations Model::forward(const std::string& name, int64_t from, int64_t to, Activations x, const Reads& needed) {
  const auto& c = chain(name);
  const auto last = static_cast<int64_t>(c.blocks.size()) - 1;
  fill_shared(c, x);
  // The head's reads are of ends; a chain that another one reads is computed everywhere.
  const bool feeds = std::any_of(chains.begin(), chains.end(), [&](const auto& other) {
    return std::find(other.upstream.begin(), other.upstream.end(), name) != other.upstream.end();
  });
  for (int64_t i = from; i < to; ++i) {
    if (i == last && !feeds && needed.where != Reads::Where::all) {
      const auto& lengths = x.hidden.values.defined() ? x.hidden.lengths : x.kept.at(c.inputs.front()).lengths;
      const auto index = resolve(needed, lengths, device());
      x = forward_block(c, i, std::move(x), &index);
    } else {
      x = forward_block(c, i, std::move(x), nullptr);
    }
  }
  return x;
}

torch::Device Model::device() const {
  const auto all = parameters();
  return all.empty() ? torch::Device(torch::kCPU) : all.front().device();
}

torch::OrderedDict<std::string, Tensor> Model::parameters_by_key() const {
  torch::OrderedDict<std::string, Tensor> all;
  append_once(all, named_parameters());
  if (head) append_once(all, head->named_parameters());
  return all;
}

torch::OrderedDict<std::string, Tensor> Model::buffers_by_key() const {
  torch::OrderedDict<std::string, Tensor> all;
  append_once(all, named_buffers());
  if (head) append_once(all, head->named_buffers());
  return all;
}

std::string Model::group_of(const std::string& key) const {
  for (const auto& group : groups)
    if (starts_with_any(key, group.prefixes)) return group.name;
  return "head";
}

void Model::unfreeze_only(const std::set<std::string>& trainable) {
  trainable_ = trainable;
  for (auto& item : parameters_by_key()) {
    const bool learns = trainable.contains(group_of(item.key()));
    item.value().set_requires_grad(learns);
    if (!learns) item.value().mutable_grad() = Tensor();
  }
  train(is_training());
}

// Note [Frozen modes]
// A frozen block must compute what it computed when its output was stored: no dropout, no drop path, stored batch
// statistics. Modules are visited parents first, so a trainable part inside a frozen parent ends in training mode.
// train() is overridden, so that whoever switches the whole model to training mode does not undo this.
void Model::train(bool on) {
  torch::nn::Module::train(on);
  if (head) head->train(on && trainable_.contains("head"));
  if (!on) return;
  for (auto& item : named_modules("", false)) {
    const auto name = item.key() + ".";
    bool learns = false;
    for (const auto& group : groups)
      if (trainable_.contains(group.name)) learns = learns || starts_with_any(name, group.prefixes);
    set_mode(*item.value(), learns);
  }
}

bool Model::uses_trainable(const Block& block) const {
  const auto learns = [&](const std::string& group) { return trainable_.contains(group); };
  return std::any_of(block.groups.begin(), block.groups.end(), learns) ||
         std::any_of(block.uses.begin(), block.uses.end(), learns);
}

int64_t Model::boundary(const std::string& name) const {
  const auto& c = chain(name);
  const auto depends = [&](const Block& block) {
    if (uses_trainable(block)) return true;
    for (const auto& up : c.upstream) {
      const bool reads_it = std::find(block.reads.begin(), block.reads.end(), up) != block.reads.end();
      if (reads_it && boundary(up) < static_cast<int64_t>(chain(up).blocks.size())) return true;
    }
    return false;
  };
  return std::find_if(c.blocks.begin(), c.blocks.end(), depends) - c.blocks.begin();
}

std::vector<std::string> Model::slots_across(const std::string& name, int64_t boundary) const {
  const auto& c = chain(name);
  std::set<std::string> written(c.inputs.begin(), c.inputs.end());
  for (int64_t i = 0; i < boundary; ++i) written.insert(c.blocks[i].writes.begin(), c.blocks[i].writes.end());
  std::set<std::string> read;
  for (size_t i = boundary; i < c.blocks.size(); ++i) read.insert(c.blocks[i].reads.begin(), c.blocks[i].reads.end());
  for (const auto& slot : head->reads_slots()) read.insert(slot);
  std::vector<std::string> across;
  std::set_intersection(written.begin(), written.end(), read.begin(), read.end(), std::back_inserter(across));
  return across;
}

void Model::positions(const int64_t*, int64_t count, int64_t* out) const {
  for (int64_t i = 0; i < count; ++i) out[i] = i;
}

}  // namespace graft::models
