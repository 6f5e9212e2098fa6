#include "tests/run/toy_images.h"

#include <torch/nn/modules/conv.h>
#include <torch/nn/modules/linear.h>

#include "graft/core/random.h"
#include "graft/data/images/encode.h"

namespace graft::tests {
namespace {

using namespace models;

struct ToyHead : Head {
  explicit ToyHead(int64_t labels) {
    classifier = register_module("classifier", torch::nn::Linear(8, std::max<int64_t>(1, labels)));
  }
  Reads reads() const override { return {Reads::Where::all}; }
  Outputs forward(const std::map<std::string, Activations>& ends) override {
    return {{"logits", classifier(ends.at("image").hidden.values.mean({2, 3}))}};
  }
  torch::nn::Linear classifier{nullptr};
};

struct ToyImage : Model {
  explicit ToyImage(int64_t labels) {
    stem = register_module("stem", torch::nn::Conv2d(torch::nn::Conv2dOptions(3, 8, 3).stride(2).padding(1)));
    layer = register_module("layer", torch::nn::Conv2d(torch::nn::Conv2dOptions(8, 8, 3).padding(1)));
    chains.push_back({.name = "image",
                      .inputs = {"pixel_values"},
                      .blocks = {{.name = "stem", .groups = {"stem"}, .reads = {"pixel_values"}},
                                 {.name = "layer", .groups = {"layer"}}}});
    groups = {{"stem", {"stem."}}, {"layer", {"layer."}}};
    head = std::make_shared<ToyHead>(labels);
  }
  Activations forward_block(const Chain&, int64_t index, Activations x, const ReadIndex*) override {
    if (index == 0) {
      const auto& pixels = x.kept.at("pixel_values");
      x.hidden = {torch::relu(stem(pixels.values)), pixels.lengths};
    } else {
      x.hidden.values = x.hidden.values + torch::relu(layer(x.hidden.values));
    }
    return x;
  }
  torch::nn::Conv2d stem{nullptr}, layer{nullptr};
};

}  // namespace

const Architecture& toy_image_architecture() {
  static const Architecture kToy{
      .model_type = "toy_image",
      .create = [](const Json&, const Task& task) -> std::shared_ptr<Model> {
        return std::make_shared<ToyImage>(task.num_labels);
      },
      .class_name = [](const Task&) -> std::string { return "ToyImageForImageClassification"; }};
  return kToy;
}

Source toy_image_source(const fs::path& folder) {
  write_text(folder / "transform.json", R"({"resize_size": 18, "crop_size": 16})");
  return {.folder = folder, .config = {{"model_type", "toy_image"}}, .architecture = &toy_image_architecture()};
}

void write_toy_images(const fs::path& folder, int count, uint64_t seed) {
  Random random(seed);
  int channel = 0;
  for (const auto* name : {"2", "10", "red"}) {
    for (int i = 0; i < count; ++i) {
      data::Image image(24, 20, 3);
      for (size_t s = 0; s < image.samples.size(); ++s)
        image.samples[s] = static_cast<uint8_t>(random.below(150) + (s % 3 == static_cast<size_t>(channel) ? 100 : 0));
      write_text(folder / name / (std::to_string(i) + ".png"), data::encode_png(image));
    }
    ++channel;
  }
}

}  // namespace graft::tests
