// CKA by its laws and a value of numpy's, agreement, and the probe that judges another model's blocks.
#include "graft/retain/drift.h"

#include <gtest/gtest.h>

#include "tests/fixtures.h"
#include "tests/models/cases.h"

namespace graft::retain {
namespace {

using namespace tests;

TEST(Cka, OfFeaturesWithThemselvesIsOneWhateverTheirRotationScaleAndShift) {
  torch::manual_seed(1);
  const auto x = torch::randn({50, 8});
  EXPECT_NEAR(linear_cka(x, x), 1, 1e-9);
  const auto rotation = std::get<0>(torch::linalg_qr(torch::randn({8, 8})));
  EXPECT_NEAR(linear_cka(x, 3 * x.mm(rotation) + 7), 1, 1e-5);
  EXPECT_LT(linear_cka(x, torch::randn({50, 8})), 0.5);
}

TEST(Cka, ByHand) {
  // Centred x = (-1, 1), y = (-1, 1) in one of two channels: Y'X = (2, 0); |X'X| = 2, |Y'Y| = 2.
  EXPECT_NEAR(linear_cka(torch::tensor({{0.0f}, {2.0f}}), torch::tensor({{1.0f, 5.0f}, {3.0f, 5.0f}})), 1, 1e-9);
  // x = (-1, 0, 1), y = (1, -2, 1): uncorrelated.
  EXPECT_NEAR(linear_cka(torch::tensor({{-1.0f}, {0.0f}, {1.0f}}), torch::tensor({{1.0f}, {-2.0f}, {1.0f}})), 0, 1e-9);
}

TEST(BorrowedBlocks, OfAnotherSizeAreRefusedAndNothingIsTaken) {
  Case model("bert_classification", 1), probe("bert_classification", 2);
  const auto before = tensors_of(*probe.model);
  const std::string key = "bert.encoder.layer.1.intermediate.dense.weight";
  model.model->parameters_by_key()[key].set_data(torch::zeros({20, 16}));
  EXPECT_EQ(message_of([&] { const BorrowedBlocks borrowed(*probe.model, *model.model, false); }),
            key +
                " is [24, 16] in the source and [20, 16] in the tuned model: they are not of one size, so one was not "
                "made from the other, and what it kept cannot be measured. Give the model that the tuned one was "
                "trained from.");
  for (const auto& [name, value] : tensors_of(*probe.model)) EXPECT_TRUE(same(value, before.at(name))) << name;
  Case deeper("roberta_classification", 1);
  EXPECT_NE(message_of([&] {
              const BorrowedBlocks borrowed(*probe.model, *deeper.model, false);
            }).find("and missing in the tuned model"),
            std::string::npos);
}

class Probe : public testing::TestWithParam<std::string> {};

TEST_P(Probe, WithAnotherModelsBlocksSeesWhatThatModelSees) {
  at::set_num_threads(1);
  Case model(GetParam(), 1), probe(GetParam(), 2);
  const std::vector<int64_t> examples{0, 3, 4, 7, 11};
  const auto expected = observe(*model.model, *model.inputs, examples);
  EXPECT_LT(linear_cka(observe(*probe.model, *model.inputs, examples).features, expected.features), 0.9999);
  const auto head = probe.model->head->named_parameters();
  std::map<std::string, models::Tensor> before;
  for (const auto& item : head) before[item.key()] = item.value().detach().clone();
  const auto own = tensors_of(*probe.model);
  {
    const BorrowedBlocks borrowed(*probe.model, *model.model, false);
    const auto seen = observe(*probe.model, *model.inputs, examples, 5);
    EXPECT_LE(relative_difference(seen.features, expected.features), 1e-5);
    for (const auto& item : head)
      if (probe.model->group_of(item.key()) == "head") {
        EXPECT_TRUE(same(item.value(), before.at(item.key()))) << item.key();
      }
    const auto first = probe.model->parameters_by_key().front();
    EXPECT_EQ(first.value().data_ptr(), model.model->parameters_by_key()[first.key()].data_ptr()) << "not a copy";
  }
  for (const auto& [key, value] : tensors_of(*probe.model)) EXPECT_TRUE(same(value, own.at(key))) << key;
  const auto lender = tensors_of(*model.model);
  release_blocks(*probe.model, *model.model, true);  // what is borrowed needs no memory in between
  {
    const BorrowedBlocks borrowed(*probe.model, *model.model, true);
    EXPECT_EQ(agreement(observe(*probe.model, *model.inputs, examples).choices, expected.choices), 1);
  }
  for (const auto& item : probe.model->parameters_by_key()) EXPECT_EQ(item.value().storage().nbytes(), 4u);
  for (const auto& [key, value] : tensors_of(*model.model)) EXPECT_TRUE(same(value, lender.at(key))) << key;
}

INSTANTIATE_TEST_SUITE_P(Drift, Probe,
                         testing::Values("bert_classification", "bert_masked_lm", "deberta-v2_classification",
                                         "llama_causal_lm", "vit_classification", "resnet_classification"),
                         [](const auto& info) { return test_name(info.param); });

}  // namespace
}  // namespace graft::retain
