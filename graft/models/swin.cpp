// Swin: attention in windows that shift from block to block, in stages that halve the grid.
// Paper:    Liu et al. 2021, https://arxiv.org/abs/2103.14030
// Weights:  transformers `swin` and timm `swin_*` by their config.json; bare ones of timm, the authors and torchvision by the
//           names and shapes of their tensors (`layout` in graft.json). Each is saved in the names that it came with.
// Parity:   tests/parity/swin-* (transformers 5.17, timm 1.0.31, torchvision 0.26): outputs, states between stages, gradients.
// Differs:  a stage ends with its merging, as in the authors' code and transformers; timm's files name the merging with
//           the stage behind it. Where windows do not divide a grid, transformers and torchvision pad it before the shift,
//           timm behind it. A grid smaller than a window makes the window smaller; torchvision pads the grid instead.
//           The authors' code takes one image size only; for others theirs is computed as transformers does.
//           Drop path is on both branches of a block (authors, timm); transformers leaves out the second.
// Shapes:   B images of H by W patches, N = B * H * W, C channels, w side of a window, h heads, D width of a head.
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
#include "graft/nn/fresh.h"
#include "graft/nn/levels.h"
#include "graft/nn/scaled_dot_product.h"

namespace graft::models {
namespace {

constexpr double kInitializerRange = 0.02;
constexpr double kOtherRegion = -100;  // added to the scores of patches that the shift brought together

struct SwinSpec {
  int64_t embed_dim = 96, patch_size = 4, num_channels = 3;
  std::vector<int64_t> depths, num_heads;
  std::vector<int64_t> windows;  // of each stage: the side that its tables of relative positions are made for
  double mlp_ratio = 4, layer_norm_eps = 1e-5;
  bool qkv_bias = true;
  bool shift_first = false;    // timm: a grid is shifted before it is padded
  bool fixed_windows = false;  // torchvision: a grid smaller than a window is padded
  std::string hidden_act = "gelu";
  double hidden_dropout = 0, attention_dropout = 0, drop_path_rate = 0.1;
};

/// Keys of a checkpoint. `qkv` is empty where query, key and value are three matrices.
struct SwinNames {
  std::string patches, patch_norm, layers, norm;
  std::string norm1, norm2, query, key, value, qkv, table, output, inner, outer;
  int64_t merge_offset = 0;  // stage i's merging is named with layer i + this
  bool in_sequence = false;  // torchvision: embedding, stages and mergings are the numbers of one sequence

  std::string block(size_t stage, int64_t b) const {
    return in_sequence ? fmt::format("{}{}.{}", layers, 2 * stage + 1, b)
                       : fmt::format("{}{}.blocks.{}", layers, stage, b);
  }
  std::string merge(size_t stage) const {
    if (in_sequence) return fmt::format("{}{}", layers, 2 * stage + 2);
    return fmt::format("{}{}.downsample", layers, static_cast<int64_t>(stage) + merge_offset);
  }

  static SwinNames transformers() {
    SwinNames n;
    n.patches = "swin.embeddings.patch_embeddings.projection";
    n.patch_norm = "swin.embeddings.norm";
    n.layers = "swin.encoder.layers.";
    n.norm = "swin.layernorm";
    n.norm1 = "layernorm_before";
    n.norm2 = "layernorm_after";
    n.query = "attention.self.query";
    n.key = "attention.self.key";
    n.value = "attention.self.value";
    n.table = "attention.self.relative_position_bias_table";
    n.output = "attention.output.dense";
    n.inner = "intermediate.dense";
    n.outer = "output.dense";
    return n;
  }

  static SwinNames timm() {
    SwinNames n;
    n.patches = "patch_embed.proj";
    n.patch_norm = "patch_embed.norm";
    n.layers = "layers.";
    n.norm = "norm";
    n.norm1 = "norm1";
    n.norm2 = "norm2";
    n.qkv = "attn.qkv";
    n.table = "attn.relative_position_bias_table";
    n.output = "attn.proj";
    n.inner = "mlp.fc1";
    n.outer = "mlp.fc2";
    n.merge_offset = 1;
    return n;
  }

  static SwinNames authors() {
    auto n = timm();
    n.merge_offset = 0;
    return n;
  }

  static SwinNames torchvision() {
    auto n = timm();
    n.patches = "features.0.0";
    n.patch_norm = "features.0.2";
    n.layers = "features.";
    n.inner = "mlp.0";
    n.outer = "mlp.3";
    n.in_sequence = true;
    return n;
  }
};

/// A grid of patches cut into windows, cyclically shifted.
struct Windows {
  int64_t height, width, side;
  int64_t down = 0, right = 0;  // how far the windows are shifted
  bool shift_first;

  Windows(int64_t height, int64_t width, int64_t largest, bool shifted, const SwinSpec& s)
      : height(height),
        width(width),
        side(s.fixed_windows ? largest : std::min({largest, height, width})),
        shift_first(s.shift_first) {
    if (!shifted) return;
    // torchvision looks at each axis of the padded grid for itself, the others at the smaller axis of the grid.
    const bool all = std::min(height, width) > side;
    down = (s.fixed_windows ? padded_height() > side : all) ? side / 2 : 0;
    right = (s.fixed_windows ? padded_width() > side : all) ? side / 2 : 0;
  }

  static int64_t up(int64_t size, int64_t side) { return (size + side - 1) / side * side; }
  int64_t padded_height() const { return up(height, side); }
  int64_t padded_width() const { return up(width, side); }
  int64_t count() const { return padded_height() / side * (padded_width() / side); }
  bool shifted() const { return down > 0 || right > 0; }

  /// (B, H, W, C) -> (B * count, side * side, C); padded below and on the right.
  Tensor cut(const Tensor& x) const {
    const auto B = x.size(0), C = x.size(3), rows = padded_height(), columns = padded_width();
    auto y = shifted() && shift_first ? torch::roll(x, {-down, -right}, {1, 2}) : x;
    if (rows > height || columns > width) y = torch::constant_pad_nd(y, {0, 0, 0, columns - width, 0, rows - height});
    if (shifted() && !shift_first) y = torch::roll(y, {-down, -right}, {1, 2});
    return y.reshape({B, rows / side, side, columns / side, side, C})
        .permute({0, 1, 3, 2, 4, 5})
        .reshape({B * count(), side * side, C});
  }

  /// The inverse of cut().
  Tensor join(const Tensor& windows, int64_t B) const {
    const auto rows = padded_height(), columns = padded_width();
    auto y = windows.view({B, rows / side, columns / side, side, side, -1})
                 .permute({0, 1, 3, 2, 4, 5})
                 .reshape({B, rows, columns, -1});
    if (shifted() && !shift_first) y = torch::roll(y, {down, right}, {1, 2});
    y = y.narrow(1, 0, height).narrow(2, 0, width);
    return shifted() && shift_first ? torch::roll(y, {down, right}, {1, 2}) : y;
  }

  /// (count, side * side, side * side): 0 between patches of one region, kOtherRegion else. A shift leaves three
  /// regions on its axis.
  Tensor mask() const {
    const auto region = [&](int64_t size, int64_t shift) {
      const auto at = torch::arange(size);
      return (at >= size - side).to(torch::kInt64) + (at >= size - shift).to(torch::kInt64);
    };
    const auto regions = region(padded_height(), down).unsqueeze(1) * 3 + region(padded_width(), right).unsqueeze(0);
    const auto cut = regions.view({padded_height() / side, side, padded_width() / side, side})
                         .permute({0, 2, 1, 3})
                         .reshape({count(), side * side});
    return (cut.unsqueeze(1) != cut.unsqueeze(2)).to(torch::kFloat32) * kOtherRegion;
  }
};

/// Row of a table for windows of side `made_for` between each pair of patches of a window: (side^4).
Tensor relative_positions(int64_t side, int64_t made_for) {
  const auto at = torch::arange(side);
  const auto row = at.repeat_interleave(side), column = at.repeat({side});
  const auto apart = [&](const Tensor& place) { return place.unsqueeze(1) - place.unsqueeze(0) + (made_for - 1); };
  return (apart(row) * (2 * made_for - 1) + apart(column)).flatten();
}

struct SwinBlock {
  SwinBlock(torch::nn::Module& root, const std::string& prefix, const SwinNames& n, const SwinSpec& s, size_t stage,
            bool shifted, double drop_path)
      : num_heads(s.num_heads[stage]),
        window(s.windows[stage]),
        shifted(shifted),
        spec(s),
        hidden_dropout(s.hidden_dropout),
        attention_dropout(s.attention_dropout),
        drop_path(drop_path),
        act(nn::activation(s.hidden_act, "config.json")) {
    const auto C = s.embed_dim << stage, F = static_cast<int64_t>(s.mlp_ratio * static_cast<double>(C) + 1e-6);
    const auto linear = [&](const std::string& name, int64_t in, int64_t out, bool bias) {
      return nn::place(root, prefix + "." + name, nn::Linear(in, out, bias));
    };
    norm1 = nn::place(root, prefix + "." + n.norm1, nn::LayerNorm(C, s.layer_norm_eps));
    const auto rows = (2 * window - 1) * (2 * window - 1);
    table = nn::place_parameter(root, prefix + "." + n.table, nn::fresh_normal({rows, num_heads}, kInitializerRange));
    if (n.qkv.empty()) {
      query = linear(n.query, C, C, s.qkv_bias);
      key = linear(n.key, C, C, s.qkv_bias);
      value = linear(n.value, C, C, s.qkv_bias);
    } else {
      qkv = linear(n.qkv, C, 3 * C, s.qkv_bias);
    }
    output = linear(n.output, C, C, true);
    norm2 = nn::place(root, prefix + "." + n.norm2, nn::LayerNorm(C, s.layer_norm_eps));
    inner = linear(n.inner, C, F, true);
    outer = linear(n.outer, F, C, true);
    module = &nn::level(root, prefix);
  }

  /// x (N, C)
  Tensor forward(const Tensor& x, int64_t B, int64_t H, int64_t W) {
    const bool training = module->is_training();
    const auto finished = [&](const Tensor& y) {
      return nn::drop_path(nn::dropout(y, hidden_dropout, training), B, drop_path, training);
    };
    const Windows windows(H, W, window, shifted, spec);
    const auto mixed = attend(windows.cut(norm1(x).view({B, H, W, -1})), windows, B);
    const auto y = x + finished(windows.join(mixed, B).reshape({B * H * W, -1}));
    return y + finished(outer(act(inner(norm2(y)))));
  }

 private:
  /// x (B * windows, w * w, C)
  Tensor attend(const Tensor& x, const Windows& windows, int64_t B) {
    const auto count = windows.count(), T = x.size(1);
    Tensor q, k, v;
    if (qkv) {
      const auto parts = qkv(x).chunk(3, -1);
      q = parts[0], k = parts[1], v = parts[2];
    } else {
      q = query(x), k = key(x), v = value(x);
    }
    auto bias = table.index_select(0, relative_positions(windows.side, window).to(table.device()))
                    .view({T, T, num_heads})
                    .permute({2, 0, 1});  // (h, T, T)
    // Without a shift all windows share one bias; with one each has its own, the same for every image.
    std::vector<int64_t> shape{B * count, T, num_heads, -1};
    if (windows.shifted()) {
      bias = bias + windows.mask().to(table.device()).unsqueeze(1);  // (count, h, T, T)
      shape = {B, count, T, num_heads, -1};
    }
    const auto heads = [&](const Tensor& y) { return y.reshape(shape).transpose(-3, -2); };  // (..., h, T, D)
    const double dropout = module->is_training() ? attention_dropout : 0.0;
    const auto mixed = nn::scaled_dot_product(heads(q), heads(k), heads(v), bias.unsqueeze(0), {.dropout = dropout});
    return output(mixed.transpose(-3, -2).reshape({B * count, T, -1}));
  }

  torch::nn::Module* module;
  int64_t num_heads, window;
  bool shifted;
  SwinSpec spec;
  double hidden_dropout, attention_dropout, drop_path;
  nn::Activation act;
  nn::LayerNorm norm1{nullptr}, norm2{nullptr};
  nn::Linear query{nullptr}, key{nullptr}, value{nullptr}, qkv{nullptr}, output{nullptr}, inner{nullptr},
      outer{nullptr};
  Tensor table;  // ((2w - 1)^2, h)
};

struct SwinStage {
  std::vector<SwinBlock> blocks;
  nn::LayerNorm merge_norm{nullptr};
  nn::Linear reduction{nullptr};

  /// (N, C) -> (B * ceil(H / 2) * ceil(W / 2), 2C)
  Tensor merge(const Tensor& x, int64_t B, int64_t H, int64_t W) {
    auto y = x.view({B, H, W, -1});
    if (H % 2 != 0 || W % 2 != 0) y = torch::constant_pad_nd(y, {0, 0, 0, W % 2, 0, H % 2});
    const auto rows = (H + 1) / 2, columns = (W + 1) / 2;
    // The four patches beside each other, the row running fastest.
    y = y.view({B, rows, 2, columns, 2, -1}).permute({0, 1, 3, 4, 2, 5}).reshape({B * rows * columns, -1});
    return reduction(merge_norm(y));
  }
};

struct Swin : Model {
  Swin(const SwinNames& names, const SwinSpec& s) : spec(s) {
    GRAFT_CHECK(model, !s.depths.empty() && s.depths.size() == s.num_heads.size(),
                "config.json: depths and num_heads of Swin's stages must be lists of one length.");
    for (size_t i = 0; i < s.depths.size(); ++i)
      GRAFT_CHECK(model, s.num_heads[i] > 0 && (s.embed_dim << i) % s.num_heads[i] == 0,
                  "config.json: the width {} of stage {} is not a multiple of its {} attention heads.",
                  s.embed_dim << i, i + 1, s.num_heads[i]);
    const auto C = s.embed_dim;
    patches =
        nn::place(*this, names.patches,
                  nn::Conv2d(nn::ConvOptions{
                      .in = s.num_channels, .out = C, .kernel = s.patch_size, .stride = s.patch_size, .bias = true}));
    patch_norm = nn::place(*this, names.patch_norm, nn::LayerNorm(C, 1e-5));
    Chain image{.name = "image", .inputs = {"pixel_values"}};
    groups.push_back({"embeddings", {names.patches + ".", names.patch_norm + "."}});
    image.blocks.push_back(
        {.name = "embeddings", .groups = {"embeddings"}, .reads = {"pixel_values"}, .writes = {"grid"}});

    int64_t count = 0, total = 0;
    for (const auto depth : s.depths) total += depth;
    for (size_t i = 0; i < s.depths.size(); ++i) {
      auto& stage = stages.emplace_back();
      const auto name = "stage " + std::to_string(i + 1);
      groups.push_back({name, {}});
      for (int64_t b = 0; b < s.depths[i]; ++b, ++count) {
        const double rate =
            total > 1 ? s.drop_path_rate * static_cast<double>(count) / static_cast<double>(total - 1) : 0;
        stage.blocks.emplace_back(*this, names.block(i, b), names, s, i, b % 2 == 1, rate);
        groups.back().prefixes.push_back(names.block(i, b) + ".");
      }
      if (i + 1 < s.depths.size()) {
        const auto width = s.embed_dim << i;
        stage.merge_norm = nn::place(*this, names.merge(i) + ".norm", nn::LayerNorm(4 * width, 1e-5));
        stage.reduction =
            nn::place(*this, names.merge(i) + ".reduction", nn::Linear(4 * width, 2 * width, /*with_bias=*/false));
        groups.back().prefixes.push_back(names.merge(i) + ".");
      }
      image.blocks.push_back({.name = name, .groups = {name}, .reads = {"grid"}});
    }
    norm = nn::place(*this, names.norm, nn::LayerNorm(s.embed_dim << (s.depths.size() - 1), s.layer_norm_eps));
    groups.push_back({"norm", {names.norm + "."}});
    image.blocks.push_back({.name = "norm", .groups = {"norm"}});
    chains = {image};
  }

  int64_t width() const { return spec.embed_dim << (spec.depths.size() - 1); }

 protected:
  Activations forward_block(const Chain&, int64_t index, Activations x, const ReadIndex* needed) override {
    if (index == 0) return embed(x.kept.at("pixel_values"));
    auto& hidden = x.hidden;
    if (index > static_cast<int64_t>(stages.size())) {
      if (needed) hidden = {hidden.values.index_select(0, needed->index), needed->lengths};
      hidden.values = norm(hidden.values);
      return x;
    }
    // Images of a batch have one size, so the first one's grid is that of all.
    const auto grid = x.kept.at("grid").values;
    auto H = grid[0][0].item<int64_t>(), W = grid[0][1].item<int64_t>();
    for (int64_t i = 1; i < index; ++i) H = (H + 1) / 2, W = (W + 1) / 2;
    const auto B = static_cast<int64_t>(hidden.lengths.size());
    auto& stage = stages[index - 1];
    for (auto& block : stage.blocks) hidden.values = block.forward(hidden.values, B, H, W);
    if (stage.reduction) {
      hidden.values = stage.merge(hidden.values, B, H, W);
      hidden.lengths.assign(B, (H + 1) / 2 * ((W + 1) / 2));
    }
    return x;
  }

 private:
  Activations embed(const Rows& pixels) {
    const auto& x = pixels.values;
    const auto p = spec.patch_size;
    GRAFT_CHECK(data, x.dim() == 4 && x.size(1) == spec.num_channels,
                "pixel_values: an image has {} channels, the model takes {}.", x.size(1), spec.num_channels);
    const auto rest = [&](int64_t size) { return (p - size % p) % p; };
    const auto map = patches(torch::constant_pad_nd(x, {0, rest(x.size(3)), 0, rest(x.size(2))}));  // (B, C, H, W)
    const auto B = map.size(0), H = map.size(2), W = map.size(3);
    const auto tokens = patch_norm(map.flatten(2).transpose(1, 2));
    Activations embedded;
    embedded.hidden.values = nn::dropout(tokens, spec.hidden_dropout, patches->is_training()).reshape({B * H * W, -1});
    embedded.hidden.lengths.assign(B, H * W);
    embedded.kept["grid"] = {torch::tensor({H, W}, torch::kInt64).repeat({B, 1}).to(map.device()), pixels.lengths};
    return embedded;
  }

  SwinSpec spec;
  nn::Conv2d patches{nullptr};
  nn::LayerNorm patch_norm{nullptr}, norm{nullptr};
  std::vector<SwinStage> stages;
};

/// config.json of transformers.
struct SwinConfig {
  int64_t embed_dim = 96, patch_size = 4, num_channels = 3, window_size = 7;
  std::vector<int64_t> depths{2, 2, 6, 2}, num_heads{3, 6, 12, 24};
  double mlp_ratio = 4, layer_norm_eps = 1e-5, hidden_dropout_prob = 0, attention_probs_dropout_prob = 0,
         drop_path_rate = 0.1;
  bool qkv_bias = true, use_absolute_embeddings = false;
  std::string hidden_act = "gelu";

  template <class Visitor>
  void visit(Visitor&& field) {
    field("embed_dim", embed_dim, "C of stage 1; it doubles with each stage");
    field("patch_size", patch_size, "side of a patch");
    field("num_channels", num_channels, "channels of an image");
    field("window_size", window_size, "side of a window, in patches");
    field("depths", depths, "blocks of each stage");
    field("num_heads", num_heads, "heads of each stage");
    field("mlp_ratio", mlp_ratio, "F / C");
    field("layer_norm_eps", layer_norm_eps, "epsilon of the norms in blocks and of the last one");
    field("hidden_dropout_prob", hidden_dropout_prob, "dropout behind embeddings, attention and feed-forward");
    field("attention_probs_dropout_prob", attention_probs_dropout_prob, "dropout on attention weights");
    field("drop_path_rate", drop_path_rate, "of the last block, linear from 0");
    field("qkv_bias", qkv_bias, "biases of query, key and value");
    field("use_absolute_embeddings", use_absolute_embeddings, "must be false");
    field("hidden_act", hidden_act, "activation of the feed-forward layers");
  }
};

std::shared_ptr<Model> from_transformers(const Json& json, const Task& task) {
  const auto c = read_config<SwinConfig>(json);
  GRAFT_CHECK(model, !c.use_absolute_embeddings,
              "config.json: use_absolute_embeddings is true; graft computes Swin with relative positions only. Take a "
              "source without it, as all published ones are.");
  SwinSpec s;
  s.embed_dim = c.embed_dim;
  s.patch_size = c.patch_size;
  s.num_channels = c.num_channels;
  s.depths = c.depths;
  s.num_heads = c.num_heads;
  s.windows.assign(c.depths.size(), c.window_size);
  s.mlp_ratio = c.mlp_ratio;
  s.layer_norm_eps = c.layer_norm_eps;
  s.qkv_bias = c.qkv_bias;
  s.hidden_act = c.hidden_act;
  s.hidden_dropout = c.hidden_dropout_prob;
  s.attention_dropout = c.attention_probs_dropout_prob;
  s.drop_path_rate = c.drop_path_rate;
  const auto model = std::make_shared<Swin>(SwinNames::transformers(), s);
  const ImageHeadOptions head{
      .pooling = Pooling::patches, .width = model->width(), .special_tokens = 0, .classifier = "classifier"};
  model->head = task.kind == "features" ? image_features(head) : image_classifier(head, task.num_labels);
  return model;
}

/// What the tensors of a file tell.
struct SeenSwin {
  int64_t embed_dim = 0, patch_size = 4, in_chans = 3;
  std::vector<int64_t> depths, num_heads, windows;
  double mlp_ratio = 4;
  bool qkv_bias = true;

  template <class Visitor>
  void visit(Visitor&& field) {
    field("embed_dim", embed_dim, "C of stage 1");
    field("patch_size", patch_size, "side of a patch");
    field("in_chans", in_chans, "channels of an image");
    field("depths", depths, "blocks of each stage");
    field("num_heads", num_heads, "heads of each stage");
    field("windows", windows, "side of a window of each stage, in patches");
    field("mlp_ratio", mlp_ratio, "F / C");
    field("qkv_bias", qkv_bias, "biases of query, key and value");
  }
};

/// What no tensor tells: timm's `model_args`, or graft.json.
struct GivenSwin {
  double drop_rate = 0, proj_drop_rate = 0, attn_drop_rate = 0, drop_path_rate = 0.1;

  template <class Visitor>
  void visit(Visitor&& field) {
    field("drop_rate", drop_rate, "dropout before the classifier");
    field("proj_drop_rate", proj_drop_rate, "dropout behind attention and feed-forward");
    field("attn_drop_rate", attn_drop_rate, "dropout on attention weights");
    field("drop_path_rate", drop_path_rate, "drop path of the last block, linear from 0");
  }
};

enum class Layout { transformers, timm, authors, torchvision };

Layout layout_of(const Json& config) {
  if (is_timm(config)) return Layout::timm;
  if (!config.contains("layout")) return Layout::transformers;
  const auto layout = config["layout"].get<std::string>();
  for (const auto& [name, known] :
       {std::pair{"timm", Layout::timm}, {"authors", Layout::authors}, {"torchvision", Layout::torchvision}})
    if (layout == name) return known;
  fail(Kind::model, "graft.json: the layout `{}` of a Swin is unknown; known are timm, authors and torchvision.",
       layout);
}

SwinNames names_of(Layout layout) {
  return layout == Layout::timm      ? SwinNames::timm()
         : layout == Layout::authors ? SwinNames::authors()
                                     : SwinNames::torchvision();
}

const char* classifier_of(Layout layout) { return layout == Layout::timm ? "head.fc" : "head"; }

/// Adds what the tensors show: timm's names say little of a Swin, and the others have no configuration. Tables of relative
/// positions have a column for each head and (2w - 1)^2 rows for windows of side w.
Json describe(Json config, const io::TensorMap& tensors) {
  const auto layout = layout_of(config);
  if (layout == Layout::transformers) return config;
  if (is_timm(config)) refuse_timm_arguments(config, {"always_partition", "norm_layer", "act_layer"});
  const auto n = names_of(layout);
  const auto shape = [&](const std::string& key) {
    const auto found = tensors.find(key);
    return found == tensors.end() ? std::vector<int64_t>{} : found->second.shape;
  };
  const auto patches = shape(n.patches + ".weight"), inner = shape(n.block(0, 0) + "." + n.inner + ".weight");
  GRAFT_CHECK(model, patches.size() == 4 && inner.size() == 2 && inner[1] > 0,
              "the weights have no {} and {}.{}: this is no Swin that graft computes.", n.patches, n.block(0, 0),
              n.inner);
  SeenSwin s;
  s.embed_dim = patches[0];
  s.in_chans = patches[1];
  s.patch_size = patches[2];
  s.mlp_ratio = static_cast<double>(inner[0]) / static_cast<double>(inner[1]);
  s.qkv_bias = tensors.contains(n.block(0, 0) + "." + n.qkv + ".bias");
  for (size_t stage = 0; tensors.contains(n.block(stage, 0) + "." + n.table); ++stage) {
    const auto table = shape(n.block(stage, 0) + "." + n.table);
    const auto across = table.size() == 2 ? std::llround(std::sqrt(static_cast<double>(table[0]))) : 0;
    GRAFT_CHECK(model, across % 2 == 1 && across * across == table[0],
                "{}.{}: is no table of relative positions of square windows, which are those that graft computes.",
                n.block(stage, 0), n.table);
    s.num_heads.push_back(table[1]);
    s.windows.push_back((across + 1) / 2);
    int64_t depth = 0;
    while (tensors.contains(n.block(stage, depth) + "." + n.table)) ++depth;
    s.depths.push_back(depth);
  }
  Json found = Json::object();
  s.visit([&](const char* name, auto& value, const char*) { found[name] = value; });
  config["swin"] = found;
  if (!is_timm(config) && !config.contains("num_classes") && !config.contains("id2label")) {
    const auto classifier = shape(std::string(classifier_of(layout)) + ".weight");
    config["num_classes"] = classifier.size() == 2 ? classifier[0] : 0;
  }
  return config;
}

/// timm's with its config.json, and bare ones.
std::shared_ptr<Model> from_tensors(const Json& json, const Task& task) {
  GRAFT_CHECK(model, json.contains("swin"),
              "config.json: says nothing of the widths of this Swin; give the folder with its weights.");
  const auto layout = layout_of(json);
  const auto seen = read_config<SeenSwin>(json["swin"]);
  GivenSwin published;
  if (layout == Layout::torchvision)  // tiny, small and base
    published.drop_path_rate = seen.embed_dim >= 128 ? 0.5 : seen.depths.size() > 2 && seen.depths[2] > 6 ? 0.3 : 0.2;
  const auto arguments = json.value("model_args", Json::object());
  const auto given = read_config<GivenSwin>(is_timm(json) ? arguments : json, published);
  if (is_timm(json)) {
    const auto pool = arguments.value("global_pool", json.value("global_pool", "avg"));
    GRAFT_CHECK(model, pool == "avg", "config.json: global_pool `{}` is not computed for Swin; `avg` is.", pool);
  }
  SwinSpec s;
  s.embed_dim = seen.embed_dim;
  s.patch_size = seen.patch_size;
  s.num_channels = seen.in_chans;
  s.depths = seen.depths;
  s.num_heads = seen.num_heads;
  s.windows = seen.windows;
  s.mlp_ratio = seen.mlp_ratio;
  s.qkv_bias = seen.qkv_bias;
  s.shift_first = layout == Layout::timm;
  s.fixed_windows = layout == Layout::torchvision;
  s.hidden_dropout = given.proj_drop_rate;
  s.attention_dropout = given.attn_drop_rate;
  s.drop_path_rate = given.drop_path_rate;
  const auto model = std::make_shared<Swin>(names_of(layout), s);
  const ImageHeadOptions head{.pooling = Pooling::patches,
                              .width = model->width(),
                              .special_tokens = 0,
                              .classifier = classifier_of(layout),
                              .dropout = given.drop_rate};
  model->head = task.kind == "features" ? image_features(head) : image_classifier(head, task.num_labels);
  return model;
}

std::shared_ptr<Model> create(const Json& json, const Task& task) {
  return layout_of(json) == Layout::transformers ? from_transformers(json, task) : from_tensors(json, task);
}

std::string class_name(const Task& task) {
  if (task.kind == "features") return "SwinModel";
  return task.num_labels > 0 && task.kind != "tokens" ? "SwinForImageClassification" : "";
}

}  // namespace

Architecture swin() {
  return {.model_type = "swin",
          .prefix = "swin",
          .create = create,
          .class_name = class_name,
          .rules = {drop("classifier."), drop("head."), drop("*.relative_position_index"), drop("*.attn_mask")},
          .language_task = "",
          .describe = describe};
}

}  // namespace graft::models
