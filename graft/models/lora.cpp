#include "graft/models/lora.h"

#include <algorithm>
#include <cmath>

#include "graft/core/error.h"
#include "graft/models/language_head.h"
#include "graft/models/loading.h"
#include "graft/nn/dropout.h"
#include "graft/nn/layers.h"

namespace graft::models {
namespace {

const std::string kPrefix = "base_model.model.", kLevel = ".adapter.";
constexpr const char* kRestingHead = "resting head";

struct Lora final : nn::Adapter {
  Lora(int64_t in, int64_t out, const LoraOptions& o)
      : scale(o.alpha / static_cast<double>(o.rank)), dropout(o.dropout) {
    // kaiming_uniform with a = sqrt(5), as PEFT
    const double bound = 1.0 / std::sqrt(static_cast<double>(in));
    lora_A = register_parameter("lora_A", torch::empty({o.rank, in}).uniform_(-bound, bound));
    lora_B = register_parameter("lora_B", torch::zeros({out, o.rank}));
  }
  Tensor apply(const Tensor& input, const Tensor& output) override {
    if (off) return output;
    const auto x = nn::dropout(input, dropout, is_training());
    return output + torch::linear(torch::linear(x, lora_A), lora_B) * scale;
  }
  Tensor joined(const Tensor& weight) const override { return off ? weight : weight + product(); }
  Tensor product() const { return lora_B.mm(lora_A) * scale; }
  Tensor lora_A, lora_B;
  double scale, dropout;
  bool off = false;
};

/// Modules of the backbone and, where it is a language head, of the head: another head is fresh and learns as it is.
std::map<std::string, std::shared_ptr<torch::nn::Module>> modules_of(const Model& model) {
  std::map<std::string, std::shared_ptr<torch::nn::Module>> modules;
  for (const auto& item : model.named_modules("", false)) modules[item.key()] = item.value();
  if (std::dynamic_pointer_cast<LanguageHead>(model.head))
    for (const auto& item : model.head->named_modules("", false)) modules.insert({item.key(), item.value()});
  return modules;
}

std::map<std::string, std::shared_ptr<nn::LinearImpl>> linear_layers(const Model& model) {
  std::map<std::string, std::shared_ptr<nn::LinearImpl>> layers;
  for (const auto& [path, module] : modules_of(model))
    if (auto linear = std::dynamic_pointer_cast<nn::LinearImpl>(module)) layers[path] = linear;
  return layers;
}

std::map<std::string, std::shared_ptr<Lora>> adapters(const Model& model) {
  std::map<std::string, std::shared_ptr<Lora>> found;
  for (const auto& [path, module] : modules_of(model))
    if (auto lora = std::dynamic_pointer_cast<Lora>(module))
      found[path.substr(0, path.size() - (kLevel.size() - 1))] = lora;
  return found;
}

bool is_of_head(const Model& model, const std::string& path) { return model.group_of(path + ".weight") == "head"; }

bool is_target(const Model& model, const std::string& path, const std::string& target) {
  if (target == "all-linear") return !is_of_head(model, path);  // as PEFT takes it
  return path == target || path.ends_with("." + target);
}

/// The last parts of paths: what targets are named by.
std::vector<std::string> last_names(const std::vector<std::string>& paths) {
  std::set<std::string> names;
  for (const auto& path : paths) names.insert(path.substr(path.rfind('.') + 1));
  return {names.begin(), names.end()};
}

std::vector<std::string> paths_of(const auto& by_path) {
  std::vector<std::string> paths;
  paths.reserve(by_path.size());
  for (const auto& item : by_path) paths.push_back(item.first);
  return paths;
}

/// What learns of the head.
std::map<std::string, Tensor> head_parameters(const Model& model) {
  std::map<std::string, Tensor> parameters;
  for (const auto& item : model.head->named_parameters())
    if (model.group_of(item.key()) != kRestingHead && item.key().find(kLevel) == std::string::npos)
      parameters[item.key()] = item.value();
  return parameters;
}

/// Modules of the head that PEFT saves whole, by a name that ends their path and no other's.
std::vector<std::string> head_modules(const Model& model) {
  std::set<std::string> names;
  for (const auto& [key, value] : head_parameters(model)) names.insert(key.substr(0, key.rfind('.')));
  return {names.begin(), names.end()};
}

}  // namespace

std::vector<std::string> attach_lora(Model& model, const LoraOptions& options, uint64_t seed,
                                     const std::vector<std::string>& fresh) {
  const auto layers = linear_layers(model);
  std::vector<std::string> chosen;
  for (const auto& target : options.targets) {
    const auto before = chosen.size();
    for (const auto& item : layers)
      if (is_target(model, item.first, target) && std::find(chosen.begin(), chosen.end(), item.first) == chosen.end())
        chosen.push_back(item.first);
    const bool matches = chosen.size() > before || std::any_of(layers.begin(), layers.end(), [&](const auto& item) {
                           return is_target(model, item.first, target);
                         });
    GRAFT_CHECK(usage, matches, "lora.targets: no linear layer is named `{}`; there are {} (or all-linear).", target,
                listed(last_names(paths_of(layers)), 40));
  }
  std::sort(chosen.begin(), chosen.end());
  torch::manual_seed(seed);
  std::map<std::string, Group> groups;  // of adapters, by the group of the layer's weight
  Group resting{kRestingHead, {}};
  for (const auto& path : chosen) {
    const auto& layer = layers.at(path);
    const bool of_head = is_of_head(model, path);
    const auto adapter = std::make_shared<Lora>(layer->weight.size(1), layer->weight.size(0), options);
    adapter->to(layer->weight.device());
    layer->attach(adapter);
    if (of_head) {  // its adapter learns with the head
      for (const auto* name : {".weight", ".bias"}) resting.prefixes.push_back(path + name);
      continue;
    }
    const auto group = model.group_of(path + ".weight");
    groups[group].name = group + " adapters";
    groups[group].prefixes.push_back(path + kLevel);
  }
  // Before the groups of the weights, whose prefixes fit the adapters too.
  std::vector<Group> all;
  if (options.head == "freeze")
    for (const auto& item : model.head->named_parameters())
      if (item.value().dim() > 1 && item.key().find(kLevel) == std::string::npos &&
          std::find(fresh.begin(), fresh.end(), item.key()) == fresh.end())
        resting.prefixes.push_back(item.key());
  if (!resting.prefixes.empty()) all.push_back(resting);
  for (const auto& group : model.groups)
    if (groups.contains(group.name)) all.push_back(groups.at(group.name));
  all.insert(all.end(), model.groups.begin(), model.groups.end());
  model.groups = std::move(all);
  for (auto& chain : model.chains)
    for (auto& block : chain.blocks) {
      std::vector<std::string> learning;
      for (const auto& group : block.groups)
        if (groups.contains(group)) learning.push_back(group + " adapters");
      block.groups = learning;
    }
  model.unfreeze_only({"head"});
  return chosen;
}

void merge_lora(Model& model) {
  const torch::NoGradGuard no_grad;
  const auto layers = linear_layers(model);
  for (const auto& [path, lora] : adapters(model)) {
    layers.at(path)->weight.add_(lora->product());
    lora->lora_B.zero_();
  }
}

namespace {

void switch_adapters(const Model& model, bool off) {
  for (const auto& item : adapters(model)) item.second->off = off;
}

}  // namespace

WithoutAdapters::WithoutAdapters(Model& model) : model_(model) { switch_adapters(model, true); }
WithoutAdapters::~WithoutAdapters() { switch_adapters(model_, false); }

bool has_adapters(const Model& model) { return !adapters(model).empty(); }

std::map<std::string, Tensor> without_adapters(const Model& model) {
  std::map<std::string, Tensor> tensors;
  for (const auto& items : {model.parameters_by_key(), model.buffers_by_key()})
    for (const auto& item : items)
      if (item.key().find(kLevel) == std::string::npos) tensors[item.key()] = item.value();
  return tensors;
}

std::map<std::string, Tensor> peft_tensors(const Model& model) {
  std::map<std::string, Tensor> tensors;
  for (const auto& [path, lora] : adapters(model)) {
    tensors[kPrefix + path + ".lora_A.weight"] = lora->lora_A;
    tensors[kPrefix + path + ".lora_B.weight"] = lora->lora_B;
  }
  for (const auto& [key, value] : head_parameters(model)) tensors[kPrefix + key] = value;
  return tensors;
}

Json peft_config(const Model& model, const LoraOptions& options, const Task& task, const std::string& base) {
  auto paths = paths_of(adapters(model));
  return {{"peft_type", "LORA"},
          {"task_type", task.kind == "causal_lm"  ? "CAUSAL_LM"
                        : task.kind == "tokens"   ? "TOKEN_CLS"
                        : task.kind == "features" ? "FEATURE_EXTRACTION"
                                                  : "SEQ_CLS"},
          {"base_model_name_or_path", base},
          {"r", options.rank},
          {"lora_alpha", options.alpha},
          {"lora_dropout", options.dropout},
          {"target_modules", paths},
          {"modules_to_save", head_modules(model)},
          {"bias", "none"},
          {"fan_in_fan_out", false},
          {"inference_mode", true}};
}

std::vector<std::string> apply_peft(Model& model, const Json& config, const io::TensorMap& tensors,
                                    const std::string& prefix, const std::string& where) {
  GRAFT_CHECK(model,
              config.value("peft_type", "") == "LORA" && config.value("bias", "none") == "none" &&
                  !config.value("use_dora", false) && !config.value("fan_in_fan_out", false),
              "{}: adapter_config.json describes an adapter that graft does not compute; only LoRA without biases and "
              "DoRA is. Merge it with PEFT and give the whole model.",
              where);
  const double rank = config.value("r", 0.0), alpha = config.value("lora_alpha", 0.0);
  GRAFT_CHECK(model, rank > 0, "{}: adapter_config.json gives no rank (r). Save the adapter again.", where);
  const double scale = config.value("use_rslora", false) ? alpha / std::sqrt(rank) : alpha / rank;
  const torch::NoGradGuard no_grad;
  const auto layers = linear_layers(model);
  auto parameters = model.parameters_by_key();
  std::vector<std::string> unused, taken;
  for (const auto& [key, view] : tensors) {
    const auto name = key.starts_with(kPrefix) ? key.substr(kPrefix.size()) : key;
    const std::string a = ".lora_A.weight", b = ".lora_B.weight";
    if (name.ends_with(a)) continue;  // read with its B
    if (name.ends_with(b)) {
      const auto path = name.substr(0, name.size() - b.size());
      const auto layer = layers.find(path);
      const auto other = tensors.find(key.substr(0, key.size() - b.size()) + a);
      if (layer == layers.end() && !name.starts_with(prefix)) continue;  // of a head that this task has not
      if (layer == layers.end() || other == tensors.end()) {
        unused.push_back(key);
        continue;
      }
      const auto B = to_tensor(key, view), A = to_tensor(other->first, other->second);
      auto& weight = layer->second->weight;
      GRAFT_CHECK(model,
                  A.dim() == 2 && B.dim() == 2 && A.size(0) == B.size(1) && A.size(1) == weight.size(1) &&
                      B.size(0) == weight.size(0),
                  "{}: {} does not fit the layer's weight {}. The adapter belongs to another model.", where, key,
                  io::shape_text(weight.sizes().vec()));
      weight.add_(B.mm(A) * scale);
      continue;
    }
    if (!name.starts_with(prefix)) continue;
    auto* parameter = parameters.find(name);
    if (!parameter || parameter->sizes().vec() != view.shape) unused.push_back(key);
    else parameter->copy_(to_tensor(key, view)), taken.push_back(name);
  }
  GRAFT_CHECK(model, unused.empty(), "{}: the adapter has tensors that fit no layer of its base model: {}.", where,
              listed(unused));
  return taken;
}

}  // namespace graft::models
