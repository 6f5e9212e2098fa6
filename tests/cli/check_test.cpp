// graft forward, check and tokenize on the parity fixtures, through the program.
#include <gtest/gtest.h>

#include "graft/io/safetensors.h"
#include "tests/cli/program.h"

namespace graft {
namespace {

using tests::fixture;
using tests::graft;
using tests::Scratch;

/// Inputs, outputs and gradients of a fixture in one file, as `check` wants them.
void write_golden(const std::string& name, const std::filesystem::path& file) {
  io::TensorMap all;
  for (const auto* part : {"inputs", "outputs", "gradients"})
    for (const auto& [key, view] :
         io::read_safetensors(fixture("parity/" + name) / (std::string(part) + ".safetensors")).tensors)
      all[key] = view;
  io::write_safetensors(file, all);
}

TEST(Check, AgreesWithTheReferenceAndNamesTheFirstDifference) {
  const Scratch scratch;
  write_golden("bert-seqcls", scratch / "golden.safetensors");
  const auto good =
      graft({"check", fixture("parity/bert-seqcls/model").string(), (scratch / "golden.safetensors").string()});
  EXPECT_EQ(good.code, 0) << good.out;
  EXPECT_NE(good.out.find("agree within"), std::string::npos) << good.out;

  // Another epsilon of the norms is another model.
  std::filesystem::copy(fixture("parity/bert-seqcls/model"), scratch / "model");
  auto config = Json::parse(tests::read_text(scratch / "model/config.json"));
  config["layer_norm_eps"] = 1e-2;
  tests::write_text(scratch / "model/config.json", config.dump());
  const auto bad = graft({"check", (scratch / "model").string(), (scratch / "golden.safetensors").string()});
  EXPECT_EQ(bad.code, 4);
  EXPECT_NE(bad.out.find("first difference: "), std::string::npos) << bad.out;
}

TEST(Forward, WritesOutputsAndGradientsUnderTheReferencesNames) {
  const Scratch scratch;
  const auto folder = fixture("parity/roberta-mlm");
  const auto run =
      graft({"forward", "--model", (folder / "model").string(), "--inputs", (folder / "inputs.safetensors").string(),
             "--outputs", (scratch / "o.safetensors").string(), "--gradients", (scratch / "g.safetensors").string()});
  ASSERT_EQ(run.code, 0) << run.err;
  EXPECT_TRUE(io::read_safetensors(scratch / "o.safetensors").tensors.contains("logits"));
  EXPECT_EQ(io::read_safetensors(scratch / "g.safetensors").tensors.size(),
            io::read_safetensors(folder / "gradients.safetensors").tensors.size());
}

TEST(Tokenize, GivesTheReferencesIds) {
  const auto folder = fixture("parity/tokenizers/wordpiece-cased");
  std::istringstream cases(tests::read_text(folder / "cases.jsonl"));
  std::string input, line;
  std::vector<Json> expected;
  while (expected.size() < 20 && std::getline(cases, line)) {
    const auto json = Json::parse(line);
    if (json.contains("truncation") || json.contains("max_length")) continue;
    expected.push_back(json);
    input += json.dump() + "\n";
  }
  const auto run = graft({"tokenize", "--model", folder.string()}, input);
  ASSERT_EQ(run.code, 0) << run.err;
  std::istringstream lines(run.out);
  for (const auto& one : expected) {
    std::getline(lines, line);
    EXPECT_EQ(Json::parse(line)["ids"], one["ids"]) << one["text"];
  }
}

}  // namespace
}  // namespace graft
