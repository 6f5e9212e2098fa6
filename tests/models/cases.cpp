#include "tests/models/cases.h"

#include <cstring>

#include "graft/core/hash.h"
#include "graft/core/random.h"

namespace graft::tests {
namespace {

using namespace models;

constexpr int64_t kTrain = 12, kValidation = 6, kLabels = 3;

Json tiny_config(const std::string& model_type, double dropout) {
  return {{"model_type", model_type},
          {"vocab_size", 37},
          {"hidden_size", 16},
          {"num_hidden_layers", 3},
          {"num_attention_heads", 2},
          {"intermediate_size", 24},
          {"max_position_embeddings", 20},
          {"type_vocab_size", 2},
          {"layer_norm_eps", 1e-5},
          {"hidden_dropout_prob", dropout},
          {"attention_probs_dropout_prob", dropout},
          {"hidden_act", "gelu"},
          // DeBERTa: far distances share buckets, a convolution where the family has it
          {"relative_attention", true},
          {"pos_att_type", "c2p|p2c"},
          {"position_buckets", 4},
          {"norm_rel_ebd", "layer_norm"},
          {"conv_kernel_size", 3},
          // decoders
          {"num_key_value_heads", 1},
          {"attention_dropout", dropout},
          {"residual_dropout", dropout},
          {"embedding_dropout", dropout},
          {"sliding_window", 3},
          {"n_embd", 16},
          {"n_layer", 3},
          {"n_head", 2},
          {"n_positions", 20},
          {"resid_pdrop", dropout},
          {"embd_pdrop", dropout},
          {"attn_pdrop", dropout}};
}

/// The same for images of 16 x 16; batch norms and drop path too.
Json tiny_image_config(const std::string& model_type, double dropout) {
  if (model_type == "resnet")
    return {{"architecture", "resnet10"},
            {"resnet",
             {{"stem", {6}},
              {"stem_kernel", 3},
              {"depths", {1, 2}},
              {"middle", {6, 10}},
              {"out", {6, 10}},
              {"bottleneck", false},
              {"drop_path_rate", dropout},
              {"drop_rate", dropout}}}};
  if (model_type == "efficientnet")
    return {{"model_type", model_type}, {"width_coefficient", 1},  {"depth_coefficient", 1},
            {"hidden_dim", 12},         {"kernel_sizes", {3, 5}},  {"in_channels", {32, 8}},
            {"out_channels", {8, 16}},  {"strides", {1, 2}},       {"num_block_repeats", {1, 2}},
            {"expand_ratios", {1, 2}},  {"dropout_rate", dropout}, {"drop_connect_rate", dropout}};
  if (model_type == "mlp")
    return {{"model_type", model_type},
            {"layout", "torch"},
            {"mlp", {{"inputs", 768}, {"widths", {12, 10}}, {"hidden_act", "gelu"}, {"dropout", dropout}}}};
  if (model_type == "swin")  // a grid of 8 x 8 in windows of 3: shifted, padded and merged
    return {{"model_type", model_type},
            {"embed_dim", 8},
            {"patch_size", 2},
            {"window_size", 3},
            {"depths", {2, 1}},
            {"num_heads", {2, 4}},
            {"mlp_ratio", 2},
            {"hidden_dropout_prob", dropout},
            {"drop_path_rate", dropout},
            {"attention_probs_dropout_prob", dropout},
            {"num_channels", 3},
            {"layer_norm_eps", 1e-5}};
  auto config = tiny_config(model_type, dropout);
  config["image_size"] = 16;
  config["patch_size"] = 8;
  config["mlp_ratio"] = 2;
  config["use_swiglu_ffn"] = true;
  config["use_mask_token"] = false;
  config["drop_path_rate"] = dropout;
  return config;
}

/// Random pixels.
class RandomImages final : public features::Inputs {
 public:
  RandomImages(int64_t examples, uint64_t seed) : pixels_(torch::empty({examples, 3, 16, 16})) {
    Random random(seed);
    for (int64_t i = 0; i < pixels_.numel(); ++i)
      pixels_.data_ptr<float>()[i] = static_cast<float>(2 * random.uniform() - 1);
  }
  int64_t size() const override { return pixels_.size(0); }
  int64_t length(int64_t) const override { return 1; }
  Activations batch(const std::string&, const std::vector<int64_t>& examples) const override {
    Activations x;
    x.kept["pixel_values"] = {pixels_.index_select(0, torch::tensor(examples)),
                              std::vector<int64_t>(examples.size(), 1)};
    return x;
  }
  std::string hash() const override { return Sha256().update(pixels_.const_data_ptr(), pixels_.nbytes()).hex(); }

 private:
  Tensor pixels_;
};

bool is_of_images(const std::string& model_type) {
  static const std::set<std::string> kTypes{"resnet", "vit", "vit_mae", "dinov2", "efficientnet", "swin", "mlp"};
  return kTypes.contains(model_type);
}

std::unique_ptr<features::Inputs> random_text(const Model& model, int64_t examples, uint64_t seed) {
  auto inputs = std::make_unique<features::TextInputs>(model, 16);
  Random random(seed);
  for (int64_t i = 0; i < examples; ++i) {
    std::vector<int32_t> ids(2 + random.below(7)), types(ids.size());
    for (size_t t = 0; t < ids.size(); ++t) {
      ids[t] = static_cast<int32_t>(2 + random.below(35));
      types[t] = t > ids.size() / 2;
    }
    inputs->add(ids, types);
  }
  return inputs;
}

void label(const features::Inputs& inputs, int64_t labels, uint64_t seed, data::Examples& examples,
           data::Ragged<int32_t>& first_tokens) {
  Random random(seed);
  const std::string text = "-";
  for (int64_t i = 0; i < inputs.size(); ++i) {
    examples.texts.push_back({text.data(), text.size()});
    examples.labels.push_back(i % labels);
    std::vector<int32_t> first, of_words;  // every second row is a word's first token
    for (int64_t t = 0; t < inputs.length(i); t += 2) {
      first.push_back(static_cast<int32_t>(t));
      of_words.push_back(static_cast<int32_t>(random.below(labels)));
    }
    first_tokens.push_back(first);
    examples.label_sets.push_back(of_words);
  }
}

}  // namespace

Case::Case(const std::string& name, uint64_t seed, double dropout) : name(name) {
  int64_t labels = kLabels;
  const auto& toys = toy_names();
  if (std::find(toys.begin(), toys.end(), name) != toys.end()) {
    task = name == "tied" ? "tokens" : "classification";
    if (name == "tied") labels = kToyVocabulary;
    model = toy_model(name, labels, seed, dropout);
    inputs = std::make_unique<ToyInputs>(kTrain, 5);
    validation_inputs = std::make_unique<ToyInputs>(kValidation, 6);
  } else {
    std::string type;
    for (const auto& row : architectures())
      if (name.starts_with(row.model_type + "_")) type = row.model_type;
    const auto head = name.substr(type.size() + 1);
    const auto of_images = is_of_images(type);
    const auto config = of_images ? tiny_image_config(type, dropout) : tiny_config(type, dropout);
    architecture = &find_architecture(config);
    const bool language = head == "masked_lm" || head == "causal_lm";
    task = language ? "tokens" : head;
    if (language) labels = 37;
    torch::manual_seed(seed);
    model = architecture->create(config, {head, labels});
    const torch::NoGradGuard no_grad;
    for (auto& item : model->parameters_by_key())
      if (item.value().dim() > 1) item.value().normal_(0, 0.25);
    if (of_images) {
      inputs = std::make_unique<RandomImages>(kTrain, 5);
      validation_inputs = std::make_unique<RandomImages>(kValidation, 6);
    } else {
      inputs = random_text(*model, kTrain, 5);
      validation_inputs = random_text(*model, kValidation, 6);
    }
  }
  for (int64_t k = 0; k < labels; ++k) label_names.push_back(std::to_string(k));
  label(*inputs, labels, 7, examples, first_tokens);
  label(*validation_inputs, labels, 8, validation_examples, validation_first_tokens);
}

std::vector<std::string> case_names() {
  auto names = toy_names();
  for (const auto& row : architectures())
    for (const auto& head : {std::string("classification"), std::string("tokens"), row.language_task})
      if (!is_of_images(row.model_type) || head == "classification") names.push_back(row.model_type + "_" + head);
  return names;
}

std::set<std::string> all_groups(const Model& model) { return model.all_groups(); }

std::vector<std::set<std::string>> trainable_sets(const Model& model) {
  std::vector<std::set<std::string>> sets{{"head"}, all_groups(model), {model.groups.front().name, "head"}};
  std::set<std::string> suffix{"head"};
  for (auto group = model.groups.rbegin(); group != model.groups.rend(); ++group) {
    sets.push_back({group->name});
    suffix.insert(group->name);
    sets.push_back(suffix);
  }
  return sets;
}

bool same(const Tensor& a, const Tensor& b) {
  if (!a.defined() || !b.defined()) return a.defined() == b.defined();
  const auto x = a.detach().contiguous(), y = b.detach().contiguous();
  return x.sizes() == y.sizes() && x.scalar_type() == y.scalar_type() &&
         std::memcmp(x.const_data_ptr(), y.const_data_ptr(), x.nbytes()) == 0;
}

std::map<std::string, Tensor> tensors_of(const Model& model) {
  std::map<std::string, Tensor> copies;
  for (const auto& item : model.parameters_by_key()) copies[item.key()] = item.value().detach().clone();
  for (const auto& item : model.buffers_by_key()) copies[item.key()] = item.value().detach().clone();
  return copies;
}

double relative_difference(const Tensor& a, const Tensor& b) {
  if (a.sizes() != b.sizes()) return INFINITY;
  const auto largest = b.detach().abs().max().item<double>();
  return (a.detach() - b.detach()).abs().max().item<double>() / std::max(largest, 1e-30);
}

}  // namespace graft::tests
