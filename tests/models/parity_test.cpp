// Outputs and gradients equal those of the reference on every fixture of tests/parity.
// Tolerance (docs/architecture.md, exactness): max(1e-5, 3 x the noise that meta.json states), of the largest value of the
// output and of the largest gradient of the model, on one thread, where `valid` and the cotangent are not 0.
#include <gtest/gtest.h>

#include "graft/core/error.h"
#include "graft/io/file.h"
#include "graft/io/safetensors.h"
#include "graft/models/device.h"
#include "graft/models/forward.h"
#include "tests/fixtures.h"

namespace graft::models {
namespace {

using tests::fixture;

std::map<std::string, Tensor> tensors_of(const std::filesystem::path& file) {
  std::map<std::string, Tensor> tensors;
  for (const auto& [name, view] : io::read_safetensors(file).tensors) tensors[name] = to_tensor(name, view);
  return tensors;
}

double noise(const Json& meta, const char* what) {
  if (meta.contains("rounding")) {  // relative already; of images the outputs one by one
    const auto& n = meta["rounding"].at(what);
    double largest = 0;
    if (n.is_number()) return n.get<double>();
    for (const auto& item : n.items()) largest = std::max(largest, item.value().get<double>());
    return largest;
  }
  const auto& n = meta.at("float32_against_float64").at(what);
  return n.at("largest_difference").get<double>() / n.at("largest_value").get<double>();
}

/// `model`: the folder of the source, the dump's own or one with other names of its tensors: `wrapper` before each.
void expect_parity(const std::filesystem::path& folder, const std::filesystem::path& model,
                   const std::string& wrapper = "") {
  at::set_num_threads(1);
  const auto* const device = std::getenv("GRAFT_TEST_DEVICE");  // "cuda": the same fixtures there
  compute_on(device ? device : "cpu");
  const double slack = compute_device().is_cuda() ? 10 : 1;  // sums in another order
  const auto meta = Json::parse(io::read_file(folder / "meta.json"));
  const auto inputs = tensors_of(folder / "inputs.safetensors");
  auto source = Source::open(model);
  const auto computed = compute(source, inputs, true);

  const double output_tolerance = slack * std::max(1e-5, 3 * noise(meta, "outputs"));
  for (const auto& [name, expected] : tensors_of(folder / "outputs.safetensors")) {
    ASSERT_TRUE(computed.outputs.contains(name)) << name;
    auto difference = (computed.outputs.at(name) - expected).abs();
    if (inputs.contains("valid") && expected.dim() == 3) difference = difference * inputs.at("valid").unsqueeze(-1);
    const auto largest = difference.max().item<double>() / std::max(1e-30, expected.abs().max().item<double>());
    EXPECT_LE(largest, output_tolerance) << name;
    testing::Test::RecordProperty("output " + name, std::to_string(largest));
  }

  const double gradient_tolerance = slack * std::max(1e-5, 3 * noise(meta, "gradients"));
  const auto expected = tensors_of(folder / "gradients.safetensors");
  double largest_gradient = 0, largest_difference = 0;
  for (const auto& item : expected)
    largest_gradient = std::max(largest_gradient, item.second.abs().max().item<double>());
  for (const auto& [plain, gradient] : expected) {
    const auto name = "grad." + wrapper + plain.substr(5);
    ASSERT_TRUE(computed.gradients.contains(name)) << name;
    const auto difference = (computed.gradients.at(name) - gradient).abs().max().item<double>();
    EXPECT_LE(difference, gradient_tolerance * largest_gradient) << name;
    largest_difference = std::max(largest_difference, difference);
  }
  testing::Test::RecordProperty("gradients", std::to_string(largest_difference / largest_gradient));
  std::printf("%-20s gradients differ by at most %.1e of the largest\n", folder.filename().c_str(),
              largest_difference / largest_gradient);
}

class Parity : public testing::TestWithParam<std::string> {};

TEST_P(Parity, OutputsAndGradientsEqualTheReference) {
  const auto folder = fixture("parity/" + GetParam());
  expect_parity(folder, folder / "model");
}

// ---- files without a configuration

/// The tensors of a fixture's model under other names, in a folder of their own.
std::filesystem::path renamed(const tests::Scratch& scratch, const std::string& name, const std::string& file,
                              const std::string& wrapper) {
  io::TensorMap tensors;
  for (const auto& [key, view] : io::read_checkpoint(fixture("parity/" + name + "/model")).tensors)
    tensors[wrapper + key] = view;
  io::write_safetensors(scratch / file, tensors);
  return scratch.path;
}

TEST(BareLayouts, TimmsViTIsKnownByItsNames) {
  const tests::Scratch scratch;
  tests::write_text(scratch / "graft.json", R"({"num_heads": 4})");
  for (const auto* wrapper : {"", "module.", "backbone.", "_orig_mod.module."})
    expect_parity(fixture("parity/vit-timm-token"), renamed(scratch, "vit-timm-token", "vit.safetensors", wrapper),
                  wrapper);
}

TEST(BareLayouts, TimmsSwinIsKnownByItsNames) {
  const tests::Scratch scratch;
  expect_parity(fixture("parity/swin-timm"), renamed(scratch, "swin-timm", "swin.safetensors", ""));
}

TEST(BareLayouts, TimmsEfficientNetsAreToldApartByTheirFilesOnly) {
  const tests::Scratch even, tensorflow, unknown;
  expect_parity(fixture("parity/efficientnet-timm-b0"),
                renamed(even, "efficientnet-timm-b0", "efficientnet_b0_ra-3dd342df.safetensors", ""));
  expect_parity(fixture("parity/efficientnet-timm-tf-b0"),
                renamed(tensorflow, "efficientnet-timm-tf-b0", "tf_efficientnet_b0_aa-827b6e33.safetensors", ""));
  const auto folder = renamed(unknown, "efficientnet-timm-b0", "model.safetensors", "");
  const auto message = tests::message_of([&] { Source::open(folder); });
  EXPECT_NE(message.find("nothing in it tells whether it is an efficientnet_b* or a tf_efficientnet_b*"),
            std::string::npos)
      << message;
  tests::write_text(folder / "config.json", R"({"architecture": "efficientnet_b0", "num_classes": 5})");
  expect_parity(fixture("parity/efficientnet-timm-b0"), folder);
}

TEST(BareLayouts, AWidthThatNobodyPublishesNeedsItsNumberOfHeads) {
  for (const auto* name : {"vit-torchvision", "dinov2-authors"}) {
    const tests::Scratch scratch;
    for (const auto& entry : std::filesystem::directory_iterator(fixture(std::string("parity/") + name + "/model")))
      if (entry.path().extension() != ".json") std::filesystem::copy(entry, scratch.path);
    const auto source = Source::open(scratch.path);
    EXPECT_EQ(tests::message_of([&] { source.architecture->create(source.config, {"features"}); }),
              "nothing tells how many attention heads a ViT of width 24 has. Write them as \"num_heads\" into a "
              "graft.json beside the weights.");
    tests::write_text(scratch / "graft.json", R"({"model_type": "vit", "layout": "beit"})");
    EXPECT_NE(tests::message_of([&] { Source::open(scratch.path); }).find("the layout `beit` of a ViT is unknown"),
              std::string::npos);
  }
}

TEST(TimmFamilies, VariantsOfAnotherComputationAreRefused) {
  const auto refusal = [](const Json& config) { return tests::message_of([&] { find_architecture(config); }); };
  for (const auto* name : {"resnet50", "resnet50d", "resnet26t", "resnext101_32x8d", "wide_resnet50_2",
                           "gluon_resnet50_v1s", "efficientnet_b4", "tf_efficientnet_b7_ns", "efficientnet_b1_pruned",
                           "vit_base_patch16_224", "swin_base_patch4_window12_384", "resnet18.a1_in1k"})
    EXPECT_EQ(refusal({{"architecture", name}}), "") << name;
  for (const auto* name : {"resnetblur50", "resnetaa50d", "resnetv2_50", "resnetrs50", "resnet51q", "resnext26ts",
                           "resnet50_gn", "resnet50_clip", "efficientnet_blur_b0", "efficientnet_b0_gn",
                           "swin_s3_tiny_224", "vit_relpos_base_patch16_224"})
    EXPECT_NE(
        refusal({{"architecture", name}}).find(fmt::format("timm's `{}` is not an architecture that graft", name)),
        std::string::npos)
        << name;
  // Those whose tensors fit, with what the tensors do not show.
  auto source = Source::open(fixture("parity/vit-timm-token/model"));
  const auto message = [&](const Json& changes) {
    auto config = source.config;
    config.merge_patch(changes);
    return tests::message_of([&] { source.architecture->create(config, {"features"}); });
  };
  EXPECT_EQ(message(Json::object()), "");
  EXPECT_EQ(message({{"architecture", "vit_base_patch16_rpn_224"}}),
            "config.json: `vit_base_patch16_rpn_224` has norms behind attention and feed-forward instead of before "
            "them, which graft does not compute for timm's ViT.");
  EXPECT_NE(message({{"architecture", "vit_base_patch16_rope_ape_224"}}).find("rotary positions"), std::string::npos);
  EXPECT_EQ(message({{"model_args", {{"pre_norm", true}}}}),
            "config.json: model_args sets pre_norm to true, which graft does not compute for `vit_base_patch16_224`.");
  EXPECT_NE(message({{"model_args", {{"num_heads", nullptr}}}}).find("into model_args of its config.json"),
            std::string::npos);
  EXPECT_NE(message({{"model_args", {{"act_layer", "mish"}}}}).find("activation function `mish` is unknown"),
            std::string::npos);
}

TEST(PublishedWeights, ResNet20OfCifarGivesTheReferencesOutputsAndGradients) {
  const auto folder = tests::shared("parity/cifar-resnet-resnet20");
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << folder << " is not here";
  expect_parity(folder, folder / "model");
}

INSTANTIATE_TEST_SUITE_P(Bert, Parity,
                         testing::Values("bert-model", "bert-seqcls", "bert-tokencls", "bert-mlm", "bert-legacybin",
                                         "bert-legacypickle"),
                         [](const auto& info) {
                           auto name = info.param;
                           for (auto& c : name)
                             if (c == '-') c = '_';
                           return name;
                         });
INSTANTIATE_TEST_SUITE_P(Roberta, Parity, testing::Values("roberta-model", "roberta-seqcls", "roberta-mlm"),
                         [](const auto& info) {
                           auto name = info.param;
                           for (auto& c : name)
                             if (c == '-') c = '_';
                           return name;
                         });
INSTANTIATE_TEST_SUITE_P(Deberta, Parity,
                         testing::Values("deberta-seqcls", "deberta-mlm", "deberta-v2-seqcls", "deberta-v2-tokencls",
                                         "deberta-v2-mlm", "deberta-v2-conv", "deberta-v2-published", "cxr-bert-text"),
                         [](const auto& info) {
                           auto name = info.param;
                           for (auto& c : name)
                             if (c == '-') c = '_';
                           return name;
                         });
INSTANTIATE_TEST_SUITE_P(Decoders, Parity,
                         testing::Values("llama-causal", "llama-tied-llama3", "llama-bf16-shards", "llama-seqcls",
                                         "gpt_bigcode-mqa", "starcoder2-gqa", "llama-biases", "llama-tokens",
                                         "llama-rope-linear", "llama-rope-dynamic", "llama-rope-yarn",
                                         "llama-rope-longrope", "gpt_bigcode-mha", "gpt_bigcode-seqcls",
                                         "gpt_bigcode-tokens", "starcoder2-window", "starcoder2-seqcls",
                                         "starcoder2-tokens"),
                         [](const auto& info) {
                           auto name = info.param;
                           for (auto& c : name)
                             if (c == '-') c = '_';
                           return name;
                         });

INSTANTIATE_TEST_SUITE_P(
    Images, Parity,
    testing::Values("vit-hf-classifier", "vit-hf-model", "vit-hf-interpolated", "vit-timm-token", "vit-timm-avg",
                    "resnet-hf-basic", "resnet-hf-bottleneck", "resnet-timm-basic", "resnet-timm-bottleneck",
                    "resnet-torchvision-basic", "resnet-torchvision-bottleneck", "resnet-cifar", "rad-dino-model",
                    "rad-dino-classifier", "dinov2-swiglu", "efficientnet-hf-classifier", "efficientnet-timm-b0",
                    "efficientnet-timm-tf-b0", "swin-model", "swin-classifier", "swin-timm", "vit-mae-encoder",
                    "vit-mae-pretraining", "vit-timm-registers", "vit-timm-gap-registers", "vit-timm-resized",
                    "vit-timm-swiglu", "resnet-timm-d", "resnext-timm", "efficientnet-torchvision", "vit-torchvision",
                    "vit-torchvision-resized", "swin-torchvision", "swin-authors", "vit-mae-authors", "dinov2-authors",
                    "dinov2-authors-registers", "mlp"),
    [](const auto& info) {
      auto name = info.param;
      for (auto& c : name)
        if (c == '-') c = '_';
      return name;
    });

}  // namespace
}  // namespace graft::models
