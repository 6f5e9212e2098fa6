// Outputs and gradients equal those of the reference on every fixture of tests/parity.
// Tolerance (docs/architecture.md, exactness): max(1e-5, 3 x the noise that meta.json states), of the largest value of the
// output and of the largest gradient of the model, on one thread, where `valid` and the cotangent are not 0.
#include <gtest/gtest.h>

#include "graft/io/file.h"
#include "graft/io/safetensors.h"
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

class Parity : public testing::TestWithParam<std::string> {};

TEST_P(Parity, OutputsAndGradientsEqualTheReference) {
  at::set_num_threads(1);
  const auto folder = fixture("parity/" + GetParam());
  const auto meta = Json::parse(io::read_file(folder / "meta.json"));
  const auto inputs = tensors_of(folder / "inputs.safetensors");
  auto source = Source::open(folder / "model");
  const auto computed = compute(source, inputs, true);

  const double output_tolerance = std::max(1e-5, 3 * noise(meta, "outputs"));
  for (const auto& [name, expected] : tensors_of(folder / "outputs.safetensors")) {
    ASSERT_TRUE(computed.outputs.contains(name)) << name;
    auto difference = (computed.outputs.at(name) - expected).abs();
    if (inputs.contains("valid") && expected.dim() == 3) difference = difference * inputs.at("valid").unsqueeze(-1);
    const auto largest = difference.max().item<double>() / std::max(1e-30, expected.abs().max().item<double>());
    EXPECT_LE(largest, output_tolerance) << name;
    RecordProperty("output " + name, std::to_string(largest));
  }

  const double gradient_tolerance = std::max(1e-5, 3 * noise(meta, "gradients"));
  const auto expected = tensors_of(folder / "gradients.safetensors");
  double largest_gradient = 0, largest_difference = 0;
  for (const auto& item : expected)
    largest_gradient = std::max(largest_gradient, item.second.abs().max().item<double>());
  for (const auto& [name, gradient] : expected) {
    ASSERT_TRUE(computed.gradients.contains(name)) << name;
    const auto difference = (computed.gradients.at(name) - gradient).abs().max().item<double>();
    EXPECT_LE(difference, gradient_tolerance * largest_gradient) << name;
    largest_difference = std::max(largest_difference, difference);
  }
  RecordProperty("gradients", std::to_string(largest_difference / largest_gradient));
  std::printf("%-20s gradients differ by at most %.1e of the largest\n", GetParam().c_str(),
              largest_difference / largest_gradient);
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

INSTANTIATE_TEST_SUITE_P(Images, Parity,
                         testing::Values("vit-hf-classifier", "vit-hf-model", "vit-hf-interpolated", "vit-timm-token",
                                         "vit-timm-avg", "resnet-hf-basic", "resnet-hf-bottleneck", "resnet-timm-basic",
                                         "resnet-timm-bottleneck", "resnet-torchvision-basic",
                                         "resnet-torchvision-bottleneck", "resnet-cifar", "rad-dino-model",
                                         "rad-dino-classifier", "dinov2-swiglu", "efficientnet-hf-classifier",
                                         "efficientnet-timm-b0", "efficientnet-timm-tf-b0", "swin-model",
                                         "swin-classifier", "swin-timm", "vit-mae-encoder", "vit-mae-pretraining",
                                         "vit-timm-registers", "vit-timm-gap-registers", "resnet-timm-d",
                                         "resnext-timm", "efficientnet-torchvision", "mlp"),
                         [](const auto& info) {
                           auto name = info.param;
                           for (auto& c : name)
                             if (c == '-') c = '_';
                           return name;
                         });

}  // namespace
}  // namespace graft::models
