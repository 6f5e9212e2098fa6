// MLP: an image's pixels after one another through linear layers, the usual network of continual learning's protocols.
// Weights:  "mlp.layers.N" and "classifier", as torch's Linear names them; a graft.json beside them says
//           {"model_type": "mlp", "layout": "torch"}. What it does not say is read from the shapes of the tensors.
// Parity:   tests/parity/mlp, torch 2.11.
// Shapes:   B images, C channels, H by W pixels; with `gray` their channels' mean is taken, else all C * H * W are read.
#include "graft/core/error.h"
#include "graft/models/architectures.h"
#include "graft/models/config.h"
#include "graft/models/image_heads.h"
#include "graft/nn/activation.h"
#include "graft/nn/dropout.h"
#include "graft/nn/levels.h"

namespace graft::models {
namespace {

struct MlpSpec {
  int64_t inputs = 784;
  std::vector<int64_t> widths{256, 256};
  bool gray = false;
  std::string hidden_act = "relu";
  double dropout = 0;

  template <class Visitor>
  void visit(Visitor&& field) {
    field("inputs", inputs, "values of an image");
    field("widths", widths, "of the hidden layers");
    field("gray", gray, "the mean of an image's channels is read");
    field("hidden_act", hidden_act, "activation");
    field("dropout", dropout, "behind each hidden layer");
  }
};

struct Mlp final : Model {
  explicit Mlp(const MlpSpec& s) : spec(s), act(nn::activation(s.hidden_act, "graft.json")) {
    GRAFT_CHECK(model, !s.widths.empty(), "graft.json: an MLP needs at least one hidden layer.");
    Chain image{.name = "image", .inputs = {"pixel_values"}};
    int64_t width = s.inputs;
    for (size_t i = 0; i < s.widths.size(); ++i) {
      const auto key = "mlp.layers." + std::to_string(i), name = "layer " + std::to_string(i + 1);
      layers.push_back(nn::place(*this, key, nn::Linear(width, s.widths[i])));
      groups.push_back({name, {key + "."}});
      image.blocks.push_back({.name = name, .groups = {name}});
      width = s.widths[i];
    }
    image.blocks.front().reads = {"pixel_values"};
    chains = {image};
  }

 protected:
  Activations forward_block(const Chain&, int64_t index, Activations x, const ReadIndex* needed) override {
    if (index == 0) {
      const auto& pixels = x.kept.at("pixel_values");
      auto values = spec.gray ? pixels.values.mean(1) : pixels.values;
      values = values.flatten(1);
      GRAFT_CHECK(data, values.size(1) == spec.inputs,
                  "pixel_values: an image has {} values, the MLP takes {}. Prepare images in its size (crop_size in "
                  "transform.json), with \"gray\" in graft.json where it reads one channel.",
                  values.size(1), spec.inputs);
      Activations flat;
      flat.hidden = {values, pixels.lengths};
      x = std::move(flat);
    }
    auto& layer = layers[index];
    x.hidden.values = nn::dropout(act(layer(x.hidden.values)), spec.dropout, layer->is_training());
    if (needed && needed->index.defined()) x.hidden = {x.hidden.values.index_select(0, needed->index), needed->lengths};
    return x;
  }

 private:
  MlpSpec spec;
  nn::Activation act;
  std::vector<nn::Linear> layers;
};

Json describe(Json config, const io::TensorMap& tensors) {
  auto spec = config.value("mlp", Json::object());
  for (const auto* key : {"gray", "hidden_act", "dropout"})
    if (config.contains(key)) spec[key] = config[key];
  std::vector<int64_t> widths;
  for (int64_t i = 0;; ++i) {
    const auto found = tensors.find(fmt::format("mlp.layers.{}.weight", i));
    if (found == tensors.end() || found->second.shape.size() != 2) break;
    if (i == 0) spec["inputs"] = found->second.shape[1];
    widths.push_back(found->second.shape[0]);
  }
  spec["widths"] = widths;
  config["mlp"] = spec;
  const auto head = tensors.find("classifier.weight");
  if (!config.contains("num_classes"))
    config["num_classes"] = head == tensors.end() || head->second.shape.empty() ? 0 : head->second.shape[0];
  return config;
}

std::shared_ptr<Model> create(const Json& json, const Task& task) {
  const auto spec = read_config<MlpSpec>(json.value("mlp", Json::object()));
  const auto model = std::make_shared<Mlp>(spec);
  const ImageHeadOptions head{.width = spec.widths.back(), .classifier = "classifier"};
  model->head = task.kind == "features" ? image_features(head) : image_classifier(head, task.num_labels);
  return model;
}

std::string class_name(const Task& task) {
  if (task.kind == "features") return "MlpModel";
  return task.num_labels > 0 && task.kind != "tokens" ? "MlpForImageClassification" : "";
}

}  // namespace

Architecture mlp() {
  return {.model_type = "mlp",
          .prefix = "mlp",
          .create = create,
          .class_name = class_name,
          .rules = {drop("classifier.")},
          .language_task = "",
          .describe = describe};
}

}  // namespace graft::models
