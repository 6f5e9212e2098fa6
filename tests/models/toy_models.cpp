#include "tests/models/toy_models.h"

#include <functional>

#include "graft/core/hash.h"
#include "graft/core/random.h"
#include "graft/nn/attention.h"
#include "graft/nn/layers.h"

namespace graft::tests {
namespace {

using namespace models;

constexpr int64_t C = kToyWidth;

/// norm(x + attention over `memory`); x are rows of which `lengths` belong to each example.
struct MixImpl : torch::nn::Module {
  explicit MixImpl(double dropout) : dropout(dropout) {
    for (auto [name, layer] : {std::pair{"query", &query}, {"key", &key}, {"value", &value}, {"out", &out}})
      *layer = register_module(name, nn::Linear(C, C));
    norm = register_module("norm", nn::LayerNorm(C, 1e-5));
  }
  Tensor forward(const Tensor& x, const std::vector<int64_t>& lengths, const Tensor& memory,
                 const std::vector<int64_t>& memory_lengths) {
    const double p = is_training() ? dropout : 0;
    const auto mixed = nn::attention(query(x), key(memory), value(memory), lengths, memory_lengths, 2, p);
    return norm(x + torch::dropout(out(mixed), p, is_training()));
  }
  nn::Linear query{nullptr}, key{nullptr}, value{nullptr}, out{nullptr};
  nn::LayerNorm norm{nullptr};
  double dropout;
};
TORCH_MODULE(Mix);

using Chosen = std::pair<Tensor, std::vector<int64_t>>;
/// The rows that a block computes, and how many each example has.
Chosen chosen(const Rows& rows, const ReadIndex* needed) {
  if (!needed || !needed->index.defined()) return {rows.values, needed ? needed->lengths : rows.lengths};
  return {rows.values.index_select(0, needed->index), needed->lengths};
}

void mix(const Mix& layer, Rows& hidden, const ReadIndex* needed) {
  auto [x, lengths] = chosen(hidden, needed);
  hidden = {layer.ptr()->forward(x, lengths, hidden.values, hidden.lengths), lengths};
}

struct ClassifierHead : Head {
  ClassifierHead(int64_t width, int64_t labels, Reads::Where where, std::vector<std::string> slots, double dropout)
      : where(where), slots(std::move(slots)), dropout(dropout) {
    classifier = register_module("classifier", nn::Linear(width, labels));
  }
  Reads reads() const override { return {where}; }
  std::vector<std::string> reads_slots() const override { return slots; }
  Outputs forward(const std::map<std::string, Activations>& ends) override {
    std::vector<Tensor> parts;
    for (const auto& [name, end] : ends) {
      if (name == "vision") continue;      // the text has read it
      parts.push_back(end.hidden.values);  // (B, C)
      for (const auto& slot : slots) {
        std::vector<Tensor> means;
        for (const auto& rows : end.kept.at(slot).values.split_with_sizes(end.kept.at(slot).lengths))
          means.push_back(rows.mean(0));
        parts.push_back(torch::stack(means));
      }
    }
    return {{"logits", classifier(torch::dropout(torch::cat(parts, 1), dropout, is_training()))}};
  }
  nn::Linear classifier{nullptr};
  Reads::Where where;
  std::vector<std::string> slots;
  double dropout;
};

/// Chains of an embedding and `layers` Mix each, with one group a block: "<chain> embeddings", "<chain> layer 0", ...
struct Toy : Model {
  explicit Toy(double dropout) : dropout(dropout) {}

  Chain& add_chain(const std::string& name, int64_t layers) {
    const bool text = name == "text";
    auto tower = register_module(name, std::make_shared<torch::nn::Module>());
    if (text) words = tower->register_module("embeddings", nn::Embedding(kToyVocabulary, C));
    else patches = tower->register_module("embeddings", nn::Linear(kToyPatch, C));
    const std::string input = text ? "input_ids" : "patches";
    Chain chain{.name = name, .inputs = {input}};
    add_block(chain, name + " embeddings", name + ".embeddings.");
    chain.blocks.back().reads = {input};
    for (int64_t i = 0; i < layers; ++i) {
      const auto key = std::to_string(i);
      mixes[name].push_back(tower->register_module(key, Mix(dropout)));
      add_block(chain, name + " layer " + key, name + "." + key + ".");
    }
    chains.push_back(chain);
    return chains.back();
  }
  void add_block(Chain& chain, const std::string& group, const std::string& prefix) {
    chain.blocks.push_back({.name = group, .groups = {group}});
    groups.push_back({group, {prefix}});
  }

  Activations forward_block(const Chain& chain, int64_t index, Activations x, const ReadIndex* needed) override {
    if (index == 0) {
      const auto& in = x.kept.at(chain.inputs.front());
      x.hidden = {chain.name == "text" ? words(in.values) : patches(in.values), in.lengths};
    } else {
      mix(mixes[chain.name][index - 1], x.hidden, needed);
    }
    return x;
  }

  double dropout;
  nn::Embedding words{nullptr};
  nn::Linear patches{nullptr};
  std::map<std::string, std::vector<Mix>> mixes;
};

struct TwoTowers : Toy {
  TwoTowers(int64_t labels, double dropout) : Toy(dropout) {
    auto& image = add_chain("image", 2);
    image.blocks[1].groups.push_back("joint");
    auto& text = add_chain("text", 2);
    text.blocks[2].uses = {"joint"};
    joint = register_module("joint", nn::LayerNorm(C, 1e-5));
    groups.push_back({"joint", {"joint."}});
    head = std::make_shared<ClassifierHead>(2 * C, labels, Reads::Where::first, std::vector<std::string>{}, dropout);
  }
  Activations forward_block(const Chain& chain, int64_t index, Activations x, const ReadIndex* needed) override {
    if (index == (chain.name == "text" ? 2 : 1)) x.hidden.values = joint(x.hidden.values);
    return Toy::forward_block(chain, index, std::move(x), needed);
  }
  nn::LayerNorm joint{nullptr};
};

struct CrossAttention : Toy {
  CrossAttention(int64_t labels, double dropout) : Toy(dropout) {
    add_chain("vision", 2);
    auto& text = add_chain("text", 3);
    text.upstream = {"vision"};
    const auto holder = register_module("cross", std::make_shared<torch::nn::Module>());
    for (int64_t i = 0; i < 3; ++i) {
      const auto key = std::to_string(i);
      crosses.push_back(holder->register_module(key, Mix(dropout)));
      groups.push_back({"cross " + key, {"cross." + key + "."}});
      text.blocks[i + 1].groups.push_back("cross " + key);
      text.blocks[i + 1].reads.push_back("vision");
    }
    head = std::make_shared<ClassifierHead>(C, labels, Reads::Where::last, std::vector<std::string>{}, dropout);
  }
  Activations forward_block(const Chain& chain, int64_t index, Activations x, const ReadIndex* needed) override {
    x = Toy::forward_block(chain, index, std::move(x), needed);
    if (chain.name == "text" && index > 0) {
      const auto& images = x.kept.at("vision");
      x.hidden.values = crosses[index - 1](x.hidden.values, x.hidden.lengths, images.values, images.lengths);
    }
    return x;
  }
  std::vector<Mix> crosses;
};

struct Skips : Toy {
  Skips(int64_t labels, double dropout) : Toy(dropout) {
    auto& text = add_chain("text", 3);
    text.blocks[0].writes = {"early"};
    text.blocks[1].writes = {"middle"};
    text.blocks[3].reads = {"middle"};
    centre = mixes["text"][0]->register_buffer("centre", torch::zeros({C}));
    skip = mixes["text"][2]->register_module("skip", nn::Linear(C, C));
    head = std::make_shared<ClassifierHead>(2 * C, labels, Reads::Where::first, std::vector<std::string>{"early"},
                                            dropout);
  }
  Activations forward_block(const Chain& chain, int64_t index, Activations x, const ReadIndex* needed) override {
    if (index == 1) {  // as batch norm does: the mean of the batch in training, its running mean else
      const auto mean = x.hidden.values.mean(0);
      const bool training = mixes["text"][0]->is_training();
      if (training) centre.mul_(0.9).add_(0.1 * mean.detach());
      x.hidden.values = x.hidden.values - (training ? mean : centre);
    }
    if (index == 3) {
      const auto& middle = x.kept.at("middle");
      x.hidden.values = x.hidden.values + skip(middle.values);
    }
    x = Toy::forward_block(chain, index, std::move(x), needed);
    if (index == 0) x.kept["early"] = x.hidden;
    if (index == 1) x.kept["middle"] = x.hidden;
    return x;
  }
  Tensor centre;
  nn::Linear skip{nullptr};
};

struct Tied : Toy {
  struct TiedHead : Head {
    TiedHead(nn::Embedding words, double dropout) : words(std::move(words)), dropout(dropout) {
      transform = register_module("transform", nn::Linear(C, C));
      bias = register_parameter("bias", torch::zeros({kToyVocabulary}));
    }
    Reads reads() const override { return {Reads::Where::all}; }
    std::vector<std::string> uses() const override { return {"text embeddings"}; }
    Outputs forward(const std::map<std::string, Activations>& ends) override {
      const auto x = torch::dropout(transform(ends.at("text").hidden.values), dropout, is_training());
      return {{"logits", torch::linear(x, words->weight, bias)}};  // (N, V)
    }
    nn::Embedding words;  // not registered: it belongs to the first block
    nn::Linear transform{nullptr};
    Tensor bias;
    double dropout;
  };
  explicit Tied(double dropout) : Toy(dropout) {
    add_chain("text", 2);
    head = std::make_shared<TiedHead>(words, dropout);
  }
};

struct Table : Toy {
  Table(int64_t labels, double dropout) : Toy(dropout) {
    auto& text = add_chain("text", 3);
    const auto holder = register_module("relative", std::make_shared<torch::nn::Module>());
    rows = holder->register_parameter("rows", torch::randn({4, C}));
    norm = holder->register_module("norm", nn::LayerNorm(C, 1e-5));
    groups.push_back({"table", {"relative."}});
    text.blocks[1].groups.push_back("table");
    for (size_t i = 2; i < 4; ++i) text.blocks[i].uses = {"table"};
    for (int64_t i = 0; i < 3; ++i) picks.push_back(mixes["text"][i]->register_module("pick", nn::Linear(C, C)));
    head = std::make_shared<ClassifierHead>(C, labels, Reads::Where::first, std::vector<std::string>{}, dropout);
  }
  void fill_shared(const Chain&, Activations& x) override { x.shared["table"] = norm(rows); }
  Activations forward_block(const Chain& chain, int64_t index, Activations x, const ReadIndex* needed) override {
    if (index > 0) x.hidden.values = x.hidden.values + torch::tanh(picks[index - 1](x.shared.at("table"))).mean(0);
    return Toy::forward_block(chain, index, std::move(x), needed);
  }
  Tensor rows;
  nn::LayerNorm norm{nullptr};
  std::vector<nn::Linear> picks;
};

}  // namespace

const std::vector<std::string>& toy_names() {
  static const std::vector<std::string> kNames{"two_towers", "cross_attention", "skips", "tied", "table"};
  return kNames;
}

std::shared_ptr<Model> toy_model(const std::string& name, int64_t labels, uint64_t seed, double dropout) {
  torch::manual_seed(seed);
  std::shared_ptr<Model> model;
  if (name == "two_towers") model = std::make_shared<TwoTowers>(labels, dropout);
  else if (name == "cross_attention") model = std::make_shared<CrossAttention>(labels, dropout);
  else if (name == "skips") model = std::make_shared<Skips>(labels, dropout);
  else if (name == "tied") model = std::make_shared<Tied>(dropout);
  else model = std::make_shared<Table>(labels, dropout);
  const torch::NoGradGuard no_grad;
  for (auto& item : model->parameters_by_key())  // large enough that every layer shows in the output
    if (item.value().dim() > 1) item.value().normal_(0, 0.4);
  return model;
}

ToyInputs::ToyInputs(int64_t examples, uint64_t seed) {
  Random random(seed);
  for (int64_t i = 0; i < examples; ++i) {
    ids_.emplace_back(2 + random.below(6));
    for (auto& id : ids_.back()) id = static_cast<int64_t>(random.below(kToyVocabulary));
    auto patches = torch::empty({static_cast<int64_t>(1 + random.below(4)), kToyPatch});
    for (int64_t k = 0; k < patches.numel(); ++k) patches.view(-1)[k] = 2 * random.uniform() - 1;
    patches_.push_back(patches);
  }
}

int64_t ToyInputs::rows(const std::string& chain, int64_t example) const {
  return chain == "text" ? length(example) : patches_[example].size(0);
}

Activations ToyInputs::batch(const std::string& chain, const std::vector<int64_t>& examples) const {
  Activations x;
  Rows rows;
  std::vector<Tensor> parts;
  for (const auto i : examples) {
    parts.push_back(chain == "text" ? torch::tensor(ids_[i], torch::kInt64) : patches_[i]);
    rows.lengths.push_back(parts.back().size(0));
  }
  rows.values = torch::cat(parts);
  x.kept[chain == "text" ? "input_ids" : "patches"] = rows;
  return x;
}

std::string ToyInputs::hash() const {
  Sha256 hash;
  for (size_t i = 0; i < ids_.size(); ++i) {
    hash.update(fmt::format("{} {} ", ids_[i].size(), patches_[i].size(0)));
    hash.update(ids_[i].data(), ids_[i].size() * sizeof(int64_t))
        .update(patches_[i].const_data_ptr(), patches_[i].nbytes());
  }
  return hash.hex();
}

}  // namespace graft::tests
