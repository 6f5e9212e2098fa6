// A model is named chains of blocks, input side first, and a head after them.
// Freezing acts on groups of parameters; the boundary of a chain is the first block that uses a trainable one.
// What lies before it is a function of the example alone: it runs once and is stored (graft/features).
#pragma once

#include <torch/nn/module.h>

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "graft/core/json.h"
#include "graft/models/activations.h"

namespace graft::models {

/// Parameters that freeze and unfreeze together, named by the prefixes of their keys. Input side first in a model's list.
struct Group {
  std::string name;
  std::vector<std::string> prefixes;
};

struct Block {
  std::string name;
  std::vector<std::string> groups;      // owned: a parameter belongs to its first user
  std::vector<std::string> uses = {};   // owned by another block and used here too (tied, shared tables)
  std::vector<std::string> reads = {};  // slots of Activations::kept
  std::vector<std::string> writes = {};
};

struct Chain {
  std::string name;
  std::vector<std::string> inputs;  // slots that a batch brings
  std::vector<Block> blocks;
  std::vector<std::string> upstream = {};  // chains whose output is read here, as a slot of the chain's name
};

using Outputs = std::map<std::string, Tensor>;  // as the reference names them: "logits", "pooler_output"

/// What stands after the chains: pooler, projection, task or language head. Its group is "head".
/// Parameters carry the checkpoint's full keys, so a head may name one below the backbone's prefix ("bert.pooler.dense").
struct Head : torch::nn::Module {
  virtual Reads reads() const = 0;
  virtual std::vector<std::string> reads_slots() const { return {}; }  // skips that a decoder wants
  virtual std::vector<std::string> uses() const { return {}; }         // groups of the backbone (a tied decoder)
  /// The chains' ends, at the positions that reads() names.
  virtual Outputs forward(const std::map<std::string, Activations>& ends) = 0;
};

/// What the head is for, with the names of transformers' problem types behind the words of a recipe.
struct Task {
  std::string kind = "features";  // features, classification, multilabel, regression, tokens, masked_lm
  int64_t num_labels = 0;
};

struct Model : torch::nn::Module {
  std::string name;           // of the source, for people
  std::string configuration;  // what decides the computation beside the weights; part of the name of every store
  std::vector<Chain> chains;  // upstream chains first
  std::vector<Group> groups;  // of the chains, input side first; "head" is beside them
  std::shared_ptr<Head> head;

  const Chain& chain(const std::string& name) const;
  std::set<std::string> all_groups() const;  // what blocks own, and "head"

  /// Blocks [from, to) of a chain. `needed` says at which positions the last block of the chain is computed.
  Activations forward(const std::string& chain, int64_t from, int64_t to, Activations x, const Reads& needed);

  torch::Device device() const;

  /// Parameters of chains and head by their key in a checkpoint; a tied one once. Buffers likewise.
  torch::OrderedDict<std::string, Tensor> parameters_by_key() const;
  torch::OrderedDict<std::string, Tensor> buffers_by_key() const;
  /// The group that owns a key: "head" when no group's prefix fits and the head has it.
  std::string group_of(const std::string& key) const;

  /// Freezing with its effects on the model, in one place: gradients, and the mode of every module. Groups not named are
  /// frozen and stay in evaluation mode whatever train() is called on later (Note [Frozen modes] in model.cpp).
  void unfreeze_only(const std::set<std::string>& trainable);
  const std::set<std::string>& trainable() const { return trainable_; }
  void train(bool on = true) override;

  /// The first block of the chain that uses a trainable parameter; the number of blocks when none does.
  int64_t boundary(const std::string& chain) const;
  /// Slots that must stay alive across a boundary: written before it, read behind it. Not the ends of upstream chains,
  /// which have boundaries of their own.
  std::vector<std::string> slots_across(const std::string& chain, int64_t boundary) const;

  /// Position of each token as the family counts them (text). Throws Kind::data when the text is too long.
  virtual void positions(const int64_t* ids, int64_t count, int64_t* out) const;
  /// Most tokens of an example, special ones included (text).
  virtual int64_t max_tokens() const { return INT64_MAX; }

 protected:
  /// One block. `needed` is set for the last block of the chain only.
  virtual Activations forward_block(const Chain& chain, int64_t index, Activations x, const ReadIndex* needed) = 0;
  /// Fills Activations::shared when a chain is entered anywhere.
  virtual void fill_shared(const Chain&, Activations&) {}

 private:
  bool uses_trainable(const Block& block) const;
  std::set<std::string> trainable_;
};

}  // namespace graft::models
