// Loading is total: what does not fit is one error with both lists, and nothing is left half understood.
#include "graft/models/loading.h"

#include <gtest/gtest.h>

#include "graft/core/error.h"
#include "tests/fixtures.h"
#include "tests/models/cases.h"

namespace graft::models {
namespace {

using tests::Case;
using tests::message_of;

struct TotalLoading : testing::Test {
  /// The tensors of the model itself, as a file would have them.
  std::map<std::string, Tensor> own() const {
    std::map<std::string, Tensor> tensors;
    for (const auto& item : c.model->parameters_by_key()) tensors[item.key()] = item.value().detach().clone();
    return tensors;
  }
  std::string refusal(const std::map<std::string, Tensor>& tensors, bool fresh_head = false) {
    return message_of(
        [&] { load_weights(*c.model, *c.architecture, to_views(tensors), "source/model.safetensors", fresh_head); });
  }
  Case c{"bert_classification"};
};

TEST_F(TotalLoading, WhatIsMissingAndWhatIsUnusedAreListedWithTheirShapes) {
  auto tensors = own();
  tensors.erase("bert.encoder.layer.2.output.dense.weight");
  tensors.erase("bert.pooler.dense.bias");
  tensors["bert.encoder.layer.0.attention.self.quer.weight"] = torch::zeros({16, 16});
  tensors["bert.embeddings.word_embeddings.weight"] = torch::zeros({40, 16});
  EXPECT_EQ(refusal(tensors),
            "source/model.safetensors: does not fit `bert` as config.json describes it\n"
            "  missing (2): bert.encoder.layer.2.output.dense.weight [16, 24], bert.pooler.dense.bias [16]\n"
            "  unused (1): bert.encoder.layer.0.attention.self.quer.weight [16, 16]\n"
            "  other shape (1): bert.embeddings.word_embeddings.weight: the model wants [37, 16], the file has [40, "
            "16]\n"
            "Check that config.json belongs to these weights (layers, sizes, model_type).");
}

TEST_F(TotalLoading, ListsAreCutAfterTen) {
  auto tensors = own();
  for (auto& [key, value] : own())
    if (key.starts_with("bert.encoder.layer.1.")) {
      tensors.erase(key);
      tensors["renamed." + key.substr(21)] = value;
    }
  const auto message = refusal(tensors);
  EXPECT_NE(message.find("  missing (16): bert.encoder.layer.1."), std::string::npos) << message;
  EXPECT_NE(message.find("  unused (16): renamed."), std::string::npos) << message;
  size_t cut = 0;
  for (size_t at = 0; (at = message.find(", ... and 6 more", at)) != std::string::npos; ++at) ++cut;
  EXPECT_EQ(cut, 2u) << message;
}

TEST_F(TotalLoading, AHeadMayBeFreshAndIsSaidToBe) {
  auto tensors = own();
  tensors.erase("classifier.weight");
  tensors["classifier.bias"] = torch::zeros({7});
  const auto report = load_weights(*c.model, *c.architecture, to_views(tensors), "source", true);
  EXPECT_EQ(report.fresh, (std::vector<std::string>{"classifier.weight", "classifier.bias"}));
  EXPECT_EQ(report.dropped, (std::vector<std::string>{"classifier.bias"}));
  const auto message = refusal(tensors);
  EXPECT_NE(message.find("classifier.weight [3, 16]"), std::string::npos) << message;
  EXPECT_NE(message.find("classifier.bias: the model wants [3], the file has [7]"), std::string::npos) << message;
}

}  // namespace
}  // namespace graft::models
