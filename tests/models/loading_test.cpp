// Weights are taken from the file as they lie there: not drawn before, not copied, and no model's training reaches another
// model or the file.
#include <gtest/gtest.h>

#include <fstream>

#include "graft/io/safetensors.h"
#include "graft/models/source.h"
#include "tests/fixtures.h"
#include "tests/models/cases.h"

namespace graft::models {
namespace {

using namespace tests;

struct Loading : testing::Test {
  void SetUp() override {
    at::set_num_threads(1);
    for (const auto* name : {"config.json", "model.safetensors"})
      fs::copy_file(fixture("parity/bert-mlm/model") / name, scratch / name);
  }
  Source source() const { return Source::open(scratch.path); }
  const Scratch scratch;
  const Task language{"masked_lm"}, labels{"classification", 3};
  const std::string words = "bert.embeddings.word_embeddings.weight";
};

Tensor generator_state() { return at::globalContext().defaultGenerator(torch::kCPU).get_state(); }

TEST_F(Loading, WhatTheFileHasIsNotDrawn) {
  const auto from = source();
  torch::manual_seed(7);
  const auto before = generator_state();
  EXPECT_TRUE(load(from, language, 7).report.fresh.empty());
  EXPECT_TRUE(same(generator_state(), before)) << "not one random number was asked for";
  EXPECT_FALSE(load(from, labels, 7).report.fresh.empty());
  EXPECT_FALSE(same(generator_state(), before));
}

TEST_F(Loading, AFreshHeadIsAFunctionOfTheSeedAlone) {
  const auto head = [&](uint64_t seed, bool keep_head) {
    return load(source(), labels, seed, keep_head).model->head->named_parameters()["classifier.weight"].detach();
  };
  EXPECT_TRUE(same(head(1, true), head(1, true)));
  EXPECT_TRUE(same(head(1, true), head(1, false)));
  EXPECT_FALSE(same(head(1, true), head(2, true)));
  EXPECT_NEAR(head(1, true).std().item<double>(), 0.02, 0.01);
  const auto loaded = load(source(), labels, 1);
  EXPECT_EQ(loaded.model->head->named_parameters()["classifier.bias"].abs().max().item<double>(), 0);
}

TEST_F(Loading, AHeadIsKeptOnlyWhereItIsAskedFor) {
  const auto first = load(source(), labels, 1);
  auto tensors = tensors_of(*first.model);
  io::write_safetensors(scratch / "model.safetensors", to_views(tensors));
  const auto kept = load(source(), labels, 2, true), fresh = load(source(), labels, 2, false);
  EXPECT_TRUE(same(tensors_of(*kept.model).at("classifier.weight"), tensors.at("classifier.weight")));
  EXPECT_TRUE(kept.report.fresh.empty());
  EXPECT_FALSE(same(tensors_of(*fresh.model).at("classifier.weight"), tensors.at("classifier.weight")));
  EXPECT_EQ(fresh.report.fresh, (std::vector<std::string>{"classifier.weight", "classifier.bias"}));
  EXPECT_TRUE(same(tensors_of(*fresh.model).at("bert.pooler.dense.weight"), tensors.at("bert.pooler.dense.weight")))
      << "what was pretrained with the encoder stays";
}

TEST_F(Loading, ModelsOfOneSourceShareNothingThatTrains) {
  const auto from = source();
  const auto a = load(from, language, 1).model, b = load(from, language, 1).model;
  const auto bytes = read_text(scratch / "model.safetensors");
  const auto start = tensors_of(*b);
  {
    const torch::NoGradGuard no_grad;
    for (auto& item : a->parameters_by_key()) item.value().add_(1);
  }
  for (const auto& [key, value] : tensors_of(*b)) EXPECT_TRUE(same(value, start.at(key))) << key;
  for (const auto& [key, value] : tensors_of(*load(from, language, 1).model)) EXPECT_TRUE(same(value, start.at(key)));
  EXPECT_EQ(read_text(scratch / "model.safetensors"), bytes);
  EXPECT_FALSE(same(tensors_of(*a).at(words), start.at(words)));
}

TEST_F(Loading, AModelOutlivesItsSourceAndANewFileOfThatName) {
  auto from = std::make_unique<Source>(source());
  const auto model = load(*from, language, 1).model;
  const auto start = tensors_of(*model);
  from.reset();
  auto other = start;
  for (auto& item : other) item.second = item.second + 1;
  io::write_safetensors(scratch / "model.safetensors", to_views(other));
  for (const auto& [key, value] : tensors_of(*model)) EXPECT_TRUE(same(value, start.at(key))) << key;
}

TEST_F(Loading, FloatsThatAreNotAlignedAreRead) {
  const auto start = tensors_of(*load(source(), language, 1).model);
  auto bytes = read_text(scratch / "model.safetensors");
  uint64_t header = 0;
  std::memcpy(&header, bytes.data(), 8);
  for (const int blanks : {1, 2, 4}) {
    auto shifted = bytes;
    shifted.insert(8 + header, std::string(blanks, ' '));
    const auto longer = header + blanks;
    std::memcpy(shifted.data(), &longer, 8);
    write_text(scratch / "model.safetensors", shifted);
    for (const auto& [key, value] : tensors_of(*load(source(), language, 1).model))
      EXPECT_TRUE(same(value, start.at(key))) << key << " " << blanks;
  }
}

TEST_F(Loading, HalvesBecomeFloats) {
  auto tensors = tensors_of(*load(source(), language, 1).model);
  for (auto& item : tensors) item.second = item.second.to(torch::kBFloat16);
  io::write_safetensors(scratch / "model.safetensors", to_views(tensors));
  for (const auto& [key, value] : tensors_of(*load(source(), language, 1).model))
    EXPECT_TRUE(same(value, tensors.at(key).to(torch::kFloat32))) << key;
}

TEST_F(Loading, AFileInBfloat16IsTheModelWhereWeightsAreKeptSo) {
  auto tensors = tensors_of(*load(source(), language, 1).model);
  for (auto& item : tensors) item.second = item.second.to(torch::kBFloat16);
  io::write_safetensors(scratch / "model.safetensors", to_views(tensors));
  const auto model = load(source(), language, 1, true, torch::kBFloat16).model;
  for (const auto& item : model->parameters_by_key())
    EXPECT_TRUE(same(item.value().detach(), tensors.at(item.key()).to(item.value().scalar_type()))) << item.key();
  EXPECT_EQ(model->parameters_by_key()[words].scalar_type(), torch::kBFloat16);
  // A head that the file does not have is drawn in that type too.
  const auto fresh = load(source(), labels, 1, true, torch::kBFloat16).model->head->named_parameters();
  EXPECT_EQ(fresh["classifier.weight"].scalar_type(), torch::kBFloat16);
  EXPECT_NEAR(fresh["classifier.weight"].detach().to(torch::kFloat32).std().item<double>(), 0.02, 0.01);
}

/// Memory of this process that no file stands behind, in bytes.
int64_t anonymous_memory() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("RssAnon:")) return std::stoll(line.substr(8)) * 1024;
  return 0;
}

TEST_F(Loading, AMappedModelTakesNoMemoryBesideTheFile) {
  auto config = Json::parse(read_text(scratch / "config.json"));
  const int64_t rows = 400'000, width = config["hidden_size"];
  config["vocab_size"] = rows;
  write_text(scratch / "config.json", config.dump());
  {
    auto tensors = tensors_of(*load(Source::open(fixture("parity/bert-mlm/model")), language, 1).model);
    tensors[words] = torch::ones({rows, width});
    tensors["cls.predictions.bias"] = torch::zeros({rows});
    io::write_safetensors(scratch / "model.safetensors", to_views(tensors));
  }
  const auto size = static_cast<int64_t>(fs::file_size(scratch / "model.safetensors"));
  ASSERT_GT(size, 30'000'000);
  const auto before = anonymous_memory();
  const auto model = load(source(), language, 1).model;
  EXPECT_LT(anonymous_memory() - before, size / 10);
}

}  // namespace
}  // namespace graft::models
