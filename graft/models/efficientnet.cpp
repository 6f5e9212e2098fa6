// EfficientNet: inverted residual blocks with squeeze-and-excitation.
// Paper:    Tan and Le 2019, https://arxiv.org/abs/1905.11946
// Weights:  transformers `efficientnet`, timm `efficientnet_b*` and `tf_efficientnet_b*`, torchvision's and timm's bare
//           ones (`layout` torchvision, timm, timm_tf). Shapes do not tell them apart, so padding, epsilon and skips follow
//           the ecosystem: transformers pads strided convolutions on the right and below by a fixed rule, timm and
//           torchvision evenly, timm's `tf_` by the size of the image.
// Parity:   tests/parity/efficientnet-*, transformers 5.17, timm 1.0.31, torchvision 0.26: outputs and gradients.
// Differs:  transformers' batch_norm_momentum 0.99 is TensorFlow's, the weight of the past; taken as torch's it would
//           replace the statistics by the last batch's. Here the batch weighs 0.01.
// Shapes:   B images, C channels, H by W pixels.
#include <cmath>

#include "graft/core/error.h"
#include "graft/models/architectures.h"
#include "graft/models/config.h"
#include "graft/models/image_heads.h"
#include "graft/models/timm.h"
#include "graft/nn/activation.h"
#include "graft/nn/convolution.h"
#include "graft/nn/drop_path.h"
#include "graft/nn/dropout.h"
#include "graft/nn/levels.h"

namespace graft::models {
namespace {

/// How a strided convolution is padded.
enum class Padding { even, right_and_below, same };

struct BlockSpec {
  int64_t stage = 0, index = 0;  // index within the stage
  int64_t in = 0, middle = 0, squeezed = 0, out = 0, kernel = 3, stride = 1;
  Padding padding = Padding::even;
  bool skip = false;
};

enum class Layout { transformers, timm, torchvision };

Layout layout_of(const Json& config) {
  if (is_timm(config)) return Layout::timm;
  if (!config.contains("layout")) return Layout::transformers;
  return config["layout"] == "torchvision" ? Layout::torchvision : Layout::timm;
}

/// Whether timm pads and normalises as TensorFlow does.
bool follows_tensorflow(const Json& config) {
  if (!is_timm(config)) return config.value("layout", "") == "timm_tf";
  const auto name = config["architecture"].get<std::string>();
  return name.starts_with("tf_") || name.find("_pruned") != std::string::npos;
}

struct EfficientNetSpec {
  Layout layout = Layout::transformers;
  int64_t num_channels = 3, stem = 32, top = 1280;
  std::vector<BlockSpec> blocks;
  Padding stem_padding = Padding::even;
  double eps = 1e-3, momentum = 0.01, drop_rate = 0, drop_path_rate = 0;
  std::string hidden_act = "swish";
};

Tensor padded(const Tensor& x, int64_t kernel, int64_t stride, Padding padding) {
  if (padding == Padding::even) return torch::constant_pad_nd(x, std::vector<int64_t>(4, kernel / 2));
  std::vector<int64_t> sides;
  for (const int64_t dim : {3, 2}) {
    int64_t total = kernel - 1;
    if (padding == Padding::same)
      total = std::max<int64_t>(((x.size(dim) + stride - 1) / stride - 1) * stride + kernel - x.size(dim), 0);
    else if (stride > 1) total = kernel - 2;  // of an odd kernel k / 2 - 1 left and above, k / 2 right and below
    sides.push_back(total / 2);
    sides.push_back(total - total / 2);
  }
  return torch::constant_pad_nd(x, sides);
}

/// Of a block: keys behind its prefix.
struct BlockKeys {
  std::string expand, expand_norm, depthwise, depthwise_norm, reduce, excite, project, project_norm;
};

BlockKeys keys_of(Layout layout, bool expands) {
  if (layout == Layout::torchvision) {  // parts by number, without the expansion one less
    if (!expands) return {"", "", "0.0", "0.1", "1.fc1", "1.fc2", "2.0", "2.1"};
    return {"0.0", "0.1", "1.0", "1.1", "2.fc1", "2.fc2", "3.0", "3.1"};
  }
  if (layout == Layout::transformers)
    return {"expansion.expand_conv",         "expansion.expand_bn",   "depthwise_conv.depthwise_conv",
            "depthwise_conv.depthwise_norm", "squeeze_excite.reduce", "squeeze_excite.expand",
            "projection.project_conv",       "projection.project_bn"};
  if (!expands) return {"", "", "conv_dw", "bn1", "se.conv_reduce", "se.conv_expand", "conv_pw", "bn2"};
  return {"conv_pw", "bn1", "conv_dw", "bn2", "se.conv_reduce", "se.conv_expand", "conv_pwl", "bn3"};
}

/// Keys of what stands before and behind the blocks, and the prefixes of their groups.
struct EndKeys {
  std::string stem, stem_norm, top, top_norm;
  std::vector<std::string> stem_group, top_group;
};

EndKeys keys_of_ends(Layout layout, int64_t stages) {
  if (layout == Layout::transformers)
    return {"efficientnet.embeddings.convolution", "efficientnet.embeddings.batchnorm", "efficientnet.encoder.top_conv",
            "efficientnet.encoder.top_bn",         {"efficientnet.embeddings."},        {"efficientnet.encoder.top_"}};
  if (layout == Layout::timm)
    return {"conv_stem", "bn1", "conv_head", "bn2", {"conv_stem.", "bn1."}, {"conv_head.", "bn2."}};
  const auto top = fmt::format("features.{}.", stages + 1);
  return {"features.0.0", "features.0.1", top + "0", top + "1", {"features.0."}, {top}};
}

struct InvertedResidual {
  BlockSpec spec;
  nn::Conv2d expand{nullptr}, depthwise{nullptr}, reduce{nullptr}, excite{nullptr}, project{nullptr};
  nn::BatchNorm expand_norm{nullptr}, depthwise_norm{nullptr}, project_norm{nullptr};
  nn::Activation act;
  double drop_path = 0;
  bool drops_elements = false;  // transformers: plain dropout where the paper leaves the branch out
  torch::nn::Module* module = nullptr;

  Tensor forward(const Tensor& x) {
    auto y = x;
    if (expand) y = act(expand_norm(expand(y)));
    y = act(depthwise_norm(depthwise(padded(y, spec.kernel, spec.stride, spec.padding))));
    y = y * torch::sigmoid(excite(act(reduce(y.mean({2, 3}, true)))));  // (B, C, 1, 1)
    y = project_norm(project(y));
    if (!spec.skip) return y;
    if (drops_elements) return x + nn::dropout(y, drop_path, module->is_training());
    return x + nn::drop_path(y, x.size(0), drop_path, module->is_training());
  }
};

struct EfficientNet : Model {
  explicit EfficientNet(const EfficientNetSpec& s) : spec(s), act(nn::activation(s.hidden_act, "config.json")) {
    GRAFT_CHECK(model, !s.blocks.empty(), "config.json: this EfficientNet has no blocks.");
    const auto keys = keys_of_ends(s.layout, s.blocks.back().stage + 1);
    stem = conv(keys.stem, {.in = s.num_channels, .out = s.stem, .kernel = 3, .stride = 2});
    stem_norm = norm(keys.stem_norm, s.stem);
    Chain image{.name = "image", .inputs = {"pixel_values"}};
    groups.push_back({"stem", keys.stem_group});
    image.blocks.push_back({.name = "stem", .groups = {"stem"}, .reads = {"pixel_values"}});
    for (size_t n = 0; n < s.blocks.size(); ++n) {
      const auto& b = s.blocks[n];
      if (b.index == 0) {
        const auto name = "stage " + std::to_string(b.stage + 1);
        stages.emplace_back();
        groups.push_back({name, {}});
        image.blocks.push_back({.name = name, .groups = {name}});
      }
      const auto prefix = s.layout == Layout::transformers ? fmt::format("efficientnet.encoder.blocks.{}.", n)
                          : s.layout == Layout::timm       ? fmt::format("blocks.{}.{}.", b.stage, b.index)
                                                           : fmt::format("features.{}.{}.block.", b.stage + 1, b.index);
      groups.back().prefixes.push_back(prefix);
      stages.back().push_back(block(b, prefix));
      stages.back().back().drop_path = s.drop_path_rate * static_cast<double>(n) / static_cast<double>(s.blocks.size());
    }
    top = conv(keys.top, {.in = s.blocks.back().out, .out = s.top, .kernel = 1});
    top_norm = norm(keys.top_norm, s.top);
    groups.push_back({"top", keys.top_group});
    image.blocks.push_back({.name = "top", .groups = {"top"}});
    chains = {image};
  }

 protected:
  Activations forward_block(const Chain& chain, int64_t index, Activations x, const ReadIndex* needed) override {
    if (index == 0) {
      const auto& pixels = x.kept.at("pixel_values");
      GRAFT_CHECK(data, pixels.values.dim() == 4 && pixels.values.size(1) == spec.num_channels,
                  "pixel_values: an image has {} channels, the model takes {}.", pixels.values.size(1),
                  spec.num_channels);
      Activations embedded;
      embedded.hidden = {act(stem_norm(stem(padded(pixels.values, 3, 2, spec.stem_padding)))), pixels.lengths};
      return embedded;
    }
    auto& y = x.hidden.values;
    if (index + 1 == static_cast<int64_t>(chain.blocks.size())) {
      y = act(top_norm(top(y)));
      if (needed && needed->index.defined()) x.hidden = {y.index_select(0, needed->index), needed->lengths};
    } else {
      for (auto& block : stages[index - 1]) y = block.forward(y);
    }
    return x;
  }

 private:
  nn::Conv2d conv(const std::string& key, const nn::ConvOptions& options) {
    return nn::place(*this, key, nn::Conv2d(options));
  }
  nn::BatchNorm norm(const std::string& key, int64_t channels) {
    return nn::place(*this, key, nn::BatchNorm(channels, spec.eps, spec.momentum));
  }

  InvertedResidual block(const BlockSpec& b, const std::string& prefix) {
    const bool expands = b.middle != b.in;
    const auto keys = keys_of(spec.layout, expands);
    InvertedResidual made{.spec = b, .act = act, .drops_elements = spec.layout == Layout::transformers};
    if (expands) {
      made.expand = conv(prefix + keys.expand, {.in = b.in, .out = b.middle, .kernel = 1});
      made.expand_norm = norm(prefix + keys.expand_norm, b.middle);
    }
    made.depthwise =
        conv(prefix + keys.depthwise,
             {.in = b.middle, .out = b.middle, .kernel = b.kernel, .stride = b.stride, .groups = b.middle});
    made.depthwise_norm = norm(prefix + keys.depthwise_norm, b.middle);
    made.reduce = conv(prefix + keys.reduce, {.in = b.middle, .out = b.squeezed, .kernel = 1, .bias = true});
    made.excite = conv(prefix + keys.excite, {.in = b.squeezed, .out = b.middle, .kernel = 1, .bias = true});
    made.project = conv(prefix + keys.project, {.in = b.middle, .out = b.out, .kernel = 1});
    made.project_norm = norm(prefix + keys.project_norm, b.out);
    made.module = &nn::level(*this, prefix.substr(0, prefix.size() - 1));
    return made;
  }

  EfficientNetSpec spec;
  nn::Activation act;
  nn::Conv2d stem{nullptr}, top{nullptr};
  nn::BatchNorm stem_norm{nullptr}, top_norm{nullptr};
  std::vector<std::vector<InvertedResidual>> stages;
};

/// config.json of transformers. Its own defaults are those of B7.
struct EfficientNetConfig {
  int64_t num_channels = 3, depth_divisor = 8, hidden_dim = 2560;
  double width_coefficient = 2.0, depth_coefficient = 3.1, squeeze_expansion_ratio = 0.25;
  std::vector<int64_t> kernel_sizes{3, 3, 5, 3, 5, 5, 3}, in_channels{32, 16, 24, 40, 80, 112, 192},
      out_channels{16, 24, 40, 80, 112, 192, 320}, depthwise_padding, strides{1, 2, 2, 2, 1, 2, 1},
      num_block_repeats{1, 2, 2, 3, 3, 4, 1}, expand_ratios{1, 6, 6, 6, 6, 6, 6};
  std::string hidden_act = "swish", pooling_type = "mean";
  double batch_norm_eps = 1e-3, batch_norm_momentum = 0.99, dropout_rate = 0.5, drop_connect_rate = 0.2;

  template <class Visitor>
  void visit(Visitor&& field) {
    field("num_channels", num_channels, "channels of an image");
    field("depth_divisor", depth_divisor, "widths are multiples of it");
    field("hidden_dim", hidden_dim, "width of the last convolution");
    field("width_coefficient", width_coefficient, "of all widths");
    field("depth_coefficient", depth_coefficient, "of all depths");
    field("squeeze_expansion_ratio", squeeze_expansion_ratio, "of a block's input width");
    field("kernel_sizes", kernel_sizes, "of each stage");
    field("in_channels", in_channels, "of each stage, before the coefficient");
    field("out_channels", out_channels, "of each stage, before the coefficient");
    field("depthwise_padding", depthwise_padding, "numbers of blocks that pad evenly");
    field("strides", strides, "of the first block of each stage");
    field("num_block_repeats", num_block_repeats, "blocks of each stage, before the coefficient");
    field("expand_ratios", expand_ratios, "inner width over input width");
    field("hidden_act", hidden_act, "activation");
    field("pooling_type", pooling_type, "must be mean");
    field("batch_norm_eps", batch_norm_eps, "epsilon of the norms");
    field("batch_norm_momentum", batch_norm_momentum, "weight of the past in the statistics");
    field("dropout_rate", dropout_rate, "before the classifier");
    field("drop_connect_rate", drop_connect_rate, "dropout of the last residual branch, linear from 0");
  }
};

EfficientNetSpec from_transformers(const Json& json) {
  const auto c = read_config<EfficientNetConfig>(json);
  GRAFT_CHECK(model, c.pooling_type == "mean", "config.json: pooling_type `{}` is not computed; `mean` is.",
              c.pooling_type);
  const auto stages = c.kernel_sizes.size();
  for (const auto* list : {&c.in_channels, &c.out_channels, &c.strides, &c.num_block_repeats, &c.expand_ratios})
    GRAFT_CHECK(model, list->size() == stages,
                "config.json: the lists of an EfficientNet's stages have different lengths.");
  const auto rounded = [&](int64_t channels) {
    const double wanted = static_cast<double>(channels) * c.width_coefficient;
    const auto d = c.depth_divisor;
    auto width = std::max(d, static_cast<int64_t>(wanted + static_cast<double>(d) / 2) / d * d);
    return static_cast<double>(width) < 0.9 * wanted ? width + d : width;
  };
  EfficientNetSpec s;
  s.num_channels = c.num_channels;
  s.stem = rounded(32);
  s.top = c.hidden_dim;
  s.stem_padding = Padding::right_and_below;
  s.eps = c.batch_norm_eps;
  s.momentum = 1 - c.batch_norm_momentum;
  s.drop_rate = c.dropout_rate;
  s.drop_path_rate = c.drop_connect_rate;
  s.hidden_act = c.hidden_act;
  for (size_t stage = 0; stage < stages; ++stage) {
    const auto count =
        static_cast<int64_t>(std::ceil(c.depth_coefficient * static_cast<double>(c.num_block_repeats[stage])));
    for (int64_t b = 0; b < count; ++b) {
      BlockSpec block;
      block.stage = static_cast<int64_t>(stage);
      block.index = b;
      block.out = rounded(c.out_channels[stage]);
      block.in = b == 0 ? rounded(c.in_channels[stage]) : block.out;
      block.middle = block.in * c.expand_ratios[stage];
      block.squeezed =
          std::max<int64_t>(1, static_cast<int64_t>(static_cast<double>(block.in) * c.squeeze_expansion_ratio));
      block.kernel = c.kernel_sizes[stage];
      block.stride = b == 0 ? c.strides[stage] : 1;
      block.skip = b > 0;
      const auto number = static_cast<int64_t>(s.blocks.size());
      const bool even = block.stride == 1 || std::find(c.depthwise_padding.begin(), c.depthwise_padding.end(),
                                                       number) != c.depthwise_padding.end();
      block.padding = even ? Padding::even : Padding::right_and_below;
      s.blocks.push_back(block);
    }
  }
  return s;
}

/// timm and torchvision write no widths: a list of [stage, index, in, middle, squeezed, out, kernel] from the tensors.
Json describe(Json config, const io::TensorMap& tensors) {
  const auto layout = layout_of(config);
  if (layout == Layout::transformers) return config;
  if (is_timm(config)) refuse_timm_arguments(config, {"act_layer", "norm_layer", "se_layer", "pad_type", "aa_layer"});
  const auto shape = [&](const std::string& key) {
    const auto found = tensors.find(key + ".weight");
    return found == tensors.end() ? std::vector<int64_t>{} : found->second.shape;
  };
  const auto is_conv = [&](const std::string& key) { return shape(key).size() == 4; };
  const auto prefix_of = [&](int64_t stage, int64_t b) {
    return layout == Layout::timm ? fmt::format("blocks.{}.{}.", stage, b)
                                  : fmt::format("features.{}.{}.block.", stage + 1, b);
  };
  const auto first = [&](int64_t stage, int64_t b) {
    return is_conv(prefix_of(stage, b) + (layout == Layout::timm ? "conv_dw" : "0.0"));
  };
  Json blocks = Json::array();
  int64_t stage = 0;
  for (; first(stage, 0); ++stage)
    for (int64_t b = 0; first(stage, b); ++b) {
      const auto prefix = prefix_of(stage, b);
      const bool expands = is_conv(prefix + keys_of(layout, true).project);
      const auto keys = keys_of(layout, expands);
      GRAFT_CHECK(model, is_conv(prefix + keys.project) && is_conv(prefix + keys.reduce),
                  "{}: has not the layers of an EfficientNet's block; graft computes those of B0 to B8.", prefix);
      const auto depthwise = shape(prefix + keys.depthwise);
      blocks.push_back({stage, b, expands ? shape(prefix + keys.expand)[1] : depthwise[0], depthwise[0],
                        shape(prefix + keys.reduce)[0], shape(prefix + keys.project)[0], depthwise[2]});
    }
  const auto ends = keys_of_ends(layout, stage);
  GRAFT_CHECK(model, is_conv(ends.stem) && is_conv(ends.top),
              "the weights have no {} and {}: this is no EfficientNet of {}.", ends.stem, ends.top,
              layout == Layout::timm ? "timm" : "torchvision");
  config["efficientnet"] = {{"num_channels", shape(ends.stem)[1]},
                            {"stem", shape(ends.stem)[0]},
                            {"top", shape(ends.top)[0]},
                            {"blocks", blocks}};
  if (!is_timm(config) && !config.contains("num_classes") && !config.contains("id2label")) {
    const auto classifier = shape(layout == Layout::torchvision ? "classifier.1" : "classifier");
    config["num_classes"] = classifier.empty() ? 0 : classifier[0];
  }
  return config;
}

/// timm's and torchvision's.
EfficientNetSpec from_shapes(const Json& json) {
  GRAFT_CHECK(model, json.contains("efficientnet"),
              "config.json: says nothing of the widths of this EfficientNet; give the folder with its weights.");
  const auto& shapes = json["efficientnet"];
  const bool timm = layout_of(json) == Layout::timm, tensorflow = follows_tensorflow(json);
  const auto padding = tensorflow ? Padding::same : Padding::even;
  const auto arguments = json.value("model_args", Json::object());
  EfficientNetSpec s;
  s.layout = layout_of(json);
  s.num_channels = shapes.at("num_channels");
  s.stem = shapes.at("stem");
  s.top = shapes.at("top");
  s.stem_padding = padding;
  s.eps = arguments.value("bn_eps", tensorflow ? 1e-3 : 1e-5);
  s.momentum = 0.1;
  s.drop_rate = arguments.value("drop_rate", 0.0);
  s.drop_path_rate = arguments.value("drop_path_rate", 0.0);
  if (!timm) {
    if (s.top >= 2048) s.eps = 1e-3, s.momentum = 0.01;  // B5 to B7 come from TensorFlow
    s.drop_rate = s.drop_path_rate = 0.2;
    for (const auto& [top, rate] :
         {std::pair{1408, 0.3}, {1536, 0.3}, {1792, 0.4}, {2048, 0.4}, {2304, 0.5}, {2560, 0.5}})
      if (s.top == top) s.drop_rate = rate;
  }
  constexpr int64_t kStrides[] = {1, 2, 2, 2, 1, 2, 1};  // of all B0 to B8
  for (const auto& row : shapes.at("blocks")) {
    BlockSpec b{.stage = row[0],
                .index = row[1],
                .in = row[2],
                .middle = row[3],
                .squeezed = row[4],
                .out = row[5],
                .kernel = row[6],
                .padding = padding};
    GRAFT_CHECK(model, b.stage < 7, "the weights have more than the seven stages of an EfficientNet.");
    b.stride = b.index == 0 ? kStrides[b.stage] : 1;
    b.skip = b.stride == 1 && b.in == b.out;
    s.blocks.push_back(b);
  }
  return s;
}

std::shared_ptr<Model> create(const Json& json, const Task& task) {
  const auto spec = layout_of(json) == Layout::transformers ? from_transformers(json) : from_shapes(json);
  const auto model = std::make_shared<EfficientNet>(spec);
  const ImageHeadOptions head{.pooling = Pooling::map,
                              .width = spec.top,
                              .classifier = spec.layout == Layout::torchvision ? "classifier.1" : "classifier",
                              .dropout = spec.drop_rate};
  model->head = task.kind == "features" ? image_features(head) : image_classifier(head, task.num_labels);
  return model;
}

std::string class_name(const Task& task) {
  if (task.kind == "features") return "EfficientNetModel";
  return task.num_labels > 0 && task.kind != "tokens" ? "EfficientNetForImageClassification" : "";
}

}  // namespace

Architecture efficientnet() {
  return {.model_type = "efficientnet",
          .prefix = "efficientnet",
          .create = create,
          .class_name = class_name,
          .rules = {drop("classifier.")},
          .language_task = "",
          .describe = describe};
}

}  // namespace graft::models
