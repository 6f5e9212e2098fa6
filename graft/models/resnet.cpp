// ResNet: residual convolutions in stages.
// Paper:    He et al. 2016, https://arxiv.org/abs/1512.03385; -D and 3x3 stem: He et al. 2019, https://arxiv.org/abs/1812.01187
// Weights:  transformers `resnet`, timm and torchvision (one set of names), CIFAR's ResNets with shortcuts of option A.
//           What no configuration says is read from the shapes of the tensors.
// Parity:   tests/parity/resnet-*, transformers 5.17, timm 1.0.31, torchvision 0.26, and CIFAR's kind.
// Shapes:   B images, C channels, H by W pixels.
#include "graft/core/error.h"
#include "graft/models/architectures.h"
#include "graft/models/config.h"
#include "graft/models/image_heads.h"
#include "graft/models/timm.h"
#include "graft/nn/activation.h"
#include "graft/nn/convolution.h"
#include "graft/nn/drop_path.h"
#include "graft/nn/levels.h"

namespace graft::models {
namespace {

struct ResNetSpec {
  std::vector<int64_t> stem{64};  // widths of its convolutions: one, or three of 3x3
  int64_t stem_kernel = 7, num_channels = 3, groups = 1;
  std::vector<int64_t> depths, middle, out;  // of each stage: blocks, inner and outer width
  bool bottleneck = true, avg_down = false, option_a = false;
  bool downsample_in_first_stage = false, downsample_in_bottleneck = false;
  std::string hidden_act = "relu", classifier = "fc";
  double drop_path_rate = 0, drop_rate = 0;

  bool small_images() const { return stem.size() == 1 && stem_kernel == 3; }  // CIFAR: no stride, no pooling

  template <class Visitor>
  void visit(Visitor&& field) {
    field("stem", stem, "widths of the first convolutions");
    field("stem_kernel", stem_kernel, "kernel of the first convolution");
    field("num_channels", num_channels, "channels of an image");
    field("groups", groups, "groups of the 3x3 convolutions");
    field("depths", depths, "blocks of each stage");
    field("middle", middle, "inner width of each stage");
    field("out", out, "width of each stage");
    field("bottleneck", bottleneck, "1x1, 3x3, 1x1 instead of two 3x3");
    field("avg_down", avg_down, "average pooling before the 1x1 of a shortcut (-D)");
    field("option_a", option_a, "shortcuts without weights, padded with zero channels");
    field("classifier", classifier, "key of the classifier");
    field("drop_path_rate", drop_path_rate, "of the last block, linear from 0");
    field("drop_rate", drop_rate, "dropout before the classifier");
  }
};

struct Keys {
  bool transformers;

  std::string stem_conv(size_t i, size_t count) const {
    if (transformers) return "resnet.embedder.embedder.convolution";
    return count == 1 ? "conv1" : "conv1." + std::to_string(3 * i);
  }
  std::string stem_norm(size_t i, size_t count) const {
    if (transformers) return "resnet.embedder.embedder.normalization";
    return i + 1 == count ? "bn1" : "conv1." + std::to_string(3 * i + 1);
  }
  std::vector<std::string> stem() const {
    if (transformers) return {"resnet.embedder."};
    return {"conv1.", "bn1."};
  }
  std::string stage(size_t s) const {
    return transformers ? "resnet.encoder.stages." + std::to_string(s) : "layer" + std::to_string(s + 1);
  }
  std::string block(size_t s, int64_t b) const {
    return stage(s) + (transformers ? ".layers." : ".") + std::to_string(b);
  }
  std::string conv(int64_t i) const {
    return transformers ? ".layer." + std::to_string(i) + ".convolution" : ".conv" + std::to_string(i + 1);
  }
  std::string norm(int64_t i) const {
    return transformers ? ".layer." + std::to_string(i) + ".normalization" : ".bn" + std::to_string(i + 1);
  }
  std::string shortcut_conv(bool avg_down) const {
    return transformers ? ".shortcut.convolution" : avg_down ? ".downsample.1" : ".downsample.0";
  }
  std::string shortcut_norm(bool avg_down) const {
    return transformers ? ".shortcut.normalization" : avg_down ? ".downsample.2" : ".downsample.1";
  }
};

/// A convolution and its norm.
struct ConvNorm {
  nn::Conv2d conv{nullptr};
  nn::BatchNorm norm{nullptr};
  Tensor operator()(const Tensor& x) { return norm(conv(x)); }
};

struct ResidualBlock {
  std::vector<ConvNorm> convs;
  ConvNorm shortcut;
  nn::Activation act;
  int64_t pool = 1;      // -D: stride of the pooling before the shortcut's 1x1
  int64_t option_a = 0;  // zero channels on either side of every second pixel
  double drop_path = 0;
  torch::nn::Module* module;

  Tensor forward(const Tensor& x) {
    auto y = x;
    for (size_t i = 0; i < convs.size(); ++i) {
      y = convs[i](y);
      if (i + 1 < convs.size()) y = act(y);
    }
    y = nn::drop_path(y, x.size(0), drop_path, module->is_training());
    auto skip = x;
    if (option_a > 0) {
      using torch::indexing::None;
      using torch::indexing::Slice;
      skip = torch::constant_pad_nd(x.index({Slice(), Slice(), Slice(None, None, 2), Slice(None, None, 2)}),
                                    {0, 0, 0, 0, option_a, option_a});
    } else if (shortcut.conv) {
      if (pool > 1) skip = torch::avg_pool2d(skip, pool, pool, 0, true, false);
      skip = shortcut(skip);
    }
    return act(y + skip);
  }
};

struct ResNet : Model {
  ResNet(const Keys& keys, const ResNetSpec& s) : spec(s), act(nn::activation(s.hidden_act, "config.json")) {
    GRAFT_CHECK(model, !s.depths.empty() && s.depths.size() == s.out.size() && s.depths.size() == s.middle.size(),
                "config.json: depths and widths of a ResNet's stages must be lists of one length.");
    const bool small = s.small_images();
    int64_t width = s.num_channels;
    for (size_t i = 0; i < s.stem.size(); ++i) {
      const auto kernel = s.stem.size() == 1 ? s.stem_kernel : 3;
      stem.push_back(conv_norm(keys.stem_conv(i, s.stem.size()), keys.stem_norm(i, s.stem.size()),
                               {.in = width,
                                .out = s.stem[i],
                                .kernel = kernel,
                                .stride = i == 0 && !small ? 2 : 1,
                                .padding = kernel / 2}));
      width = s.stem[i];
    }
    Chain image{.name = "image", .inputs = {"pixel_values"}};
    groups.push_back({"stem", keys.stem()});
    image.blocks.push_back({.name = "stem", .groups = {"stem"}, .reads = {"pixel_values"}});

    int64_t count = 0, total = 0;
    for (const auto depth : s.depths) total += depth;
    for (size_t i = 0; i < s.depths.size(); ++i) {
      stages.emplace_back();
      for (int64_t b = 0; b < s.depths[i]; ++b, ++count) {
        const bool halves = b == 0 && (i > 0 || s.downsample_in_first_stage);
        const double rate =
            total > 1 ? s.drop_path_rate * static_cast<double>(count) / static_cast<double>(total - 1) : 0;
        stages.back().push_back(block(keys, i, b, width, halves ? 2 : 1, rate));
        width = s.out[i];
      }
      const auto name = "stage " + std::to_string(i + 1);
      groups.push_back({name, {keys.stage(i) + "."}});
      image.blocks.push_back({.name = name, .groups = {name}});
    }
    chains = {image};
  }

  ResNetSpec spec;

 protected:
  Activations forward_block(const Chain&, int64_t index, Activations x, const ReadIndex* needed) override {
    if (index > 0) {
      for (auto& block : stages[index - 1]) x.hidden.values = block.forward(x.hidden.values);
      // Images are whole rows: leaving some out before the stage would change the batch's statistics.
      if (needed && needed->index.defined())
        x.hidden = {x.hidden.values.index_select(0, needed->index), needed->lengths};
      return x;
    }
    const auto& pixels = x.kept.at("pixel_values");
    GRAFT_CHECK(data, pixels.values.dim() == 4 && pixels.values.size(1) == spec.num_channels,
                "pixel_values: an image has {} channels, the model takes {}.", pixels.values.size(1),
                spec.num_channels);
    Activations embedded;
    auto y = pixels.values;
    for (auto& layer : stem) y = act(layer(y));
    if (!spec.small_images()) y = torch::max_pool2d(y, 3, 2, 1);
    embedded.hidden = {y, pixels.lengths};
    return embedded;
  }

 private:
  ConvNorm conv_norm(const std::string& conv, const std::string& norm, const nn::ConvOptions& options) {
    return {nn::place(*this, conv, nn::Conv2d(options)), nn::place(*this, norm, nn::BatchNorm(options.out))};
  }

  ResidualBlock block(const Keys& keys, size_t stage, int64_t b, int64_t in, int64_t stride, double rate) {
    const auto& s = spec;
    const auto out = s.out[stage], middle = s.middle[stage];
    const auto prefix = keys.block(stage, b);
    std::vector<nn::ConvOptions> options;
    if (s.bottleneck) {
      const bool early = s.downsample_in_bottleneck;
      options = {
          {.in = in, .out = middle, .kernel = 1, .stride = early ? stride : 1},
          {.in = middle, .out = middle, .kernel = 3, .stride = early ? 1 : stride, .padding = 1, .groups = s.groups},
          {.in = middle, .out = out, .kernel = 1}};
    } else {
      options = {{.in = in, .out = out, .kernel = 3, .stride = stride, .padding = 1},
                 {.in = out, .out = out, .kernel = 3, .padding = 1}};
    }
    ResidualBlock made{.act = act, .drop_path = rate};
    for (size_t i = 0; i < options.size(); ++i)
      made.convs.push_back(conv_norm(prefix + keys.conv(i), prefix + keys.norm(i), options[i]));
    if (stride != 1 || in != out) {
      if (s.option_a) {
        made.option_a = (out - in) / 2;
      } else {
        made.pool = s.avg_down ? stride : 1;
        made.shortcut = conv_norm(prefix + keys.shortcut_conv(s.avg_down), prefix + keys.shortcut_norm(s.avg_down),
                                  {.in = in, .out = out, .kernel = 1, .stride = s.avg_down ? 1 : stride});
      }
    }
    made.module = &nn::level(*this, prefix);
    return made;
  }

  std::vector<ConvNorm> stem;
  std::vector<std::vector<ResidualBlock>> stages;
  nn::Activation act;
};

/// config.json of transformers.
struct ResNetConfig {
  int64_t num_channels = 3, embedding_size = 64;
  std::vector<int64_t> hidden_sizes{256, 512, 1024, 2048}, depths{3, 4, 6, 3};
  std::string layer_type = "bottleneck", hidden_act = "relu";
  bool downsample_in_first_stage = false, downsample_in_bottleneck = false;

  template <class Visitor>
  void visit(Visitor&& field) {
    field("num_channels", num_channels, "channels of an image");
    field("embedding_size", embedding_size, "width of the stem");
    field("hidden_sizes", hidden_sizes, "width of each stage");
    field("depths", depths, "blocks of each stage");
    field("layer_type", layer_type, "basic or bottleneck");
    field("hidden_act", hidden_act, "activation");
    field("downsample_in_first_stage", downsample_in_first_stage, "whether stage 1 halves the image");
    field("downsample_in_bottleneck", downsample_in_bottleneck, "stride in the first 1x1 instead of the 3x3");
  }
};

ResNetSpec from_transformers(const Json& json) {
  const auto c = read_config<ResNetConfig>(json);
  GRAFT_CHECK(model, c.layer_type == "bottleneck" || c.layer_type == "basic",
              "config.json: layer_type `{}` is unknown; known are basic and bottleneck.", c.layer_type);
  ResNetSpec s;
  s.stem = {c.embedding_size};
  s.num_channels = c.num_channels;
  s.depths = c.depths;
  s.out = s.middle = c.hidden_sizes;
  s.bottleneck = c.layer_type == "bottleneck";
  if (s.bottleneck)
    for (auto& width : s.middle) width /= 4;
  s.hidden_act = c.hidden_act;
  s.downsample_in_first_stage = c.downsample_in_first_stage;
  s.downsample_in_bottleneck = c.downsample_in_bottleneck;
  s.classifier = "classifier.1";
  return s;
}

/// Adds to a configuration without shapes ("resnet50d", or nothing at all) what the tensors show.
Json describe(Json config, const io::TensorMap& tensors) {
  if (!is_timm(config) && !config.contains("layout")) return config;
  const auto arguments = config.value("model_args", Json::object());
  if (is_timm(config)) {
    refuse_timm_arguments(config, {"aa_layer", "act_layer", "norm_layer", "replace_stem_pool", "drop_block_rate"});
    GRAFT_CHECK(model, arguments.value("output_stride", 32) == 32,
                "config.json: model_args sets output_stride to {}; graft computes ResNets without dilation only.",
                arguments["output_stride"].dump());
  }
  ResNetSpec s;
  const auto shape = [&](const std::string& key) {
    const auto found = tensors.find(key + ".weight");
    return found == tensors.end() ? std::vector<int64_t>{} : found->second.shape;
  };
  const auto is_conv = [&](const std::string& key) { return shape(key).size() == 4; };
  s.stem.clear();
  for (const auto* key : {"conv1", "conv1.0", "conv1.3", "conv1.6"}) {
    if (!is_conv(key)) continue;
    if (s.stem.empty()) s.num_channels = shape(key)[1], s.stem_kernel = shape(key)[2];
    s.stem.push_back(shape(key)[0]);
  }
  s.bottleneck = is_conv("layer1.0.conv3");
  bool has_shortcut = false;
  for (int64_t stage = 1; is_conv(fmt::format("layer{}.0.conv1", stage)); ++stage) {
    const auto block = fmt::format("layer{}.0.", stage);
    GRAFT_CHECK(model, is_conv(block + "conv2"), "{}conv2.weight: not a convolution; is this a ResNet?", block);
    s.middle.push_back(shape(block + "conv1")[0]);
    s.out.push_back(shape(block + (s.bottleneck && is_conv(block + "conv3") ? "conv3" : "conv2"))[0]);
    if (s.bottleneck) s.groups = s.middle.back() / std::max<int64_t>(1, shape(block + "conv2")[1]);
    int64_t depth = 0;
    while (is_conv(fmt::format("layer{}.{}.conv1", stage, depth))) ++depth;
    s.depths.push_back(depth);
    s.avg_down = s.avg_down || is_conv(block + "downsample.1");
    has_shortcut = has_shortcut || is_conv(block + "downsample.0") || is_conv(block + "downsample.1");
  }
  s.option_a = !has_shortcut;
  int64_t labels = 0;
  for (const auto* key : {"fc", "linear"})
    if (shape(key).size() == 2) s.classifier = key, labels = shape(key)[0];
  s.drop_path_rate = arguments.value("drop_path_rate", 0.0);
  s.drop_rate = arguments.value("drop_rate", 0.0);
  Json described = Json::object();
  s.visit([&](const char* name, auto& value, const char*) { described[name] = value; });
  config["resnet"] = described;
  if (!config.contains("num_classes") && !config.contains("id2label")) config["num_classes"] = labels;
  return config;
}

std::shared_ptr<Model> create(const Json& json, const Task& task) {
  const bool transformers = !is_timm(json) && !json.contains("layout");
  GRAFT_CHECK(model, transformers || json.contains("resnet"),
              "config.json: says nothing of the widths of this ResNet; give the folder with its weights.");
  const auto spec = transformers ? from_transformers(json) : read_config<ResNetSpec>(json.at("resnet"));
  const auto model = std::make_shared<ResNet>(Keys{transformers}, spec);
  const ImageHeadOptions head{
      .pooling = Pooling::map, .width = spec.out.back(), .classifier = spec.classifier, .dropout = spec.drop_rate};
  model->head = task.kind == "features" ? image_features(head) : image_classifier(head, task.num_labels);
  return model;
}

std::string class_name(const Task& task) {
  if (task.kind == "features") return "ResNetModel";
  return task.num_labels > 0 && task.kind != "tokens" ? "ResNetForImageClassification" : "";
}

}  // namespace

Architecture resnet() {
  return {.model_type = "resnet",
          .prefix = "resnet",
          .create = create,
          .class_name = class_name,
          .rules = {drop("classifier."), drop("fc."), drop("linear.")},
          .language_task = "",
          .describe = describe};
}

}  // namespace graft::models
