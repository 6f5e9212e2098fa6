// Fresh layers of the head read standardised features; what the source had stays as it is.
#include "graft/finetune/standardised_start.h"

#include <gtest/gtest.h>

#include "graft/nn/layers.h"
#include "tests/finetune/nearly.h"
#include "tests/models/cases.h"

namespace graft::finetune {
namespace {

using tests::Case;
using tests::Nearly;
using torch::Tensor;

/// Dropout, a dense layer and a classifier behind one frozen chain.
struct DenseHead final : models::Head {
  explicit DenseHead(double dropout) : dropout(dropout) {
    dense = register_module("dense", nn::Linear(8, 6));
    classifier = register_module("classifier", nn::Linear(6, 3));
  }
  models::Reads reads() const override { return {models::Reads::Where::first}; }
  models::Outputs forward(const std::map<std::string, models::Activations>& ends) override {
    const auto x = torch::dropout(ends.begin()->second.hidden.values, dropout, is_training());
    return {{"logits", classifier(torch::tanh(dense(x)))}};
  }
  nn::Linear dense{nullptr}, classifier{nullptr};
  double dropout;
};

const std::vector<std::string> kFresh{"dense.weight", "dense.bias", "classifier.weight", "classifier.bias"};

std::shared_ptr<DenseHead> with_head(Case& c, double dropout = 0) {
  torch::manual_seed(2);
  const auto head = std::make_shared<DenseHead>(dropout);
  c.model->head = head;
  c.model->unfreeze_only({"head"});
  return head;
}

TEST(StandardisedStart, WhatTellsExamplesApartIsPassedOnHoweverSmallItIs) {
  for (const double scale : {1.0, 1e-3}) {
    Case c("bert_classification", 1, 0.0);
    const auto head = with_head(c);
    const Nearly stream(*c.model, scale);
    const auto classifier = head->classifier->weight.detach().clone();
    ASSERT_EQ(standardised_start(*c.model, kFresh, stream, 16, false, 1), 1);
    const torch::NoGradGuard no_grad;
    const auto out = head->dense(stream.values).to(torch::kFloat64);
    EXPECT_LT(out.mean(0).abs().max().item<double>(), 1e-2) << scale;
    EXPECT_NEAR(out.square().mean().item<double>(), 1, 1e-2) << scale;
    EXPECT_TRUE(head->classifier->weight.equal(classifier)) << "the last layer is another start's";
    EXPECT_FALSE(head->dense->tap);
  }
}

TEST(StandardisedStart, DropoutBeforeTheLayerIsNotBlownUp) {
  Case c("bert_classification", 1, 0.0);
  const auto head = with_head(c, 0.5);
  const Nearly stream(*c.model, 1e-3);
  ASSERT_EQ(standardised_start(*c.model, kFresh, stream, 16, false, 1), 1);
  const torch::NoGradGuard no_grad;
  torch::manual_seed(5);
  const auto out = head->dense(torch::dropout(stream.values, 0.5, true));
  EXPECT_LT(out.square().mean().item<double>(), 2);
}

TEST(StandardisedStart, WhatTheSourceHadStays) {
  Case c("bert_classification", 1, 0.0);
  const auto head = with_head(c);
  const Nearly stream(*c.model, 1e-3);
  const auto weight = head->dense->weight.detach().clone(), bias = head->dense->bias.detach().clone();
  EXPECT_EQ(standardised_start(*c.model, {"classifier.weight", "classifier.bias"}, stream, 16, false, 1), 0);
  EXPECT_TRUE(head->dense->weight.equal(weight) && head->dense->bias.equal(bias));
}

TEST(StandardisedStart, RoundingIsNotWhatTellsExamplesApart) {
  Case c("bert_classification", 1, 0.0);
  const auto head = with_head(c);
  EXPECT_EQ(standardised_start(*c.model, kFresh, Nearly(*c.model, 1e-7), 16, false, 1), 0);
}

TEST(StandardisedStart, IsTheSameEachTime) {
  Tensor first;
  for (int round = 0; round < 2; ++round) {
    Case c("bert_classification", 1, 0.0);
    const auto head = with_head(c, 0.1);
    standardised_start(*c.model, kFresh, Nearly(*c.model, 1), 16, false, 1);
    if (round == 0) first = head->dense->weight.detach().clone();
    else EXPECT_TRUE(first.equal(head->dense->weight));
  }
}

}  // namespace
}  // namespace graft::finetune
