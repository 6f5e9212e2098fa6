// Sources of the hub as a user meets them: graft pull, graft sources, --source ORG/NAME, resumed without a connection.
#include <gtest/gtest.h>

#include "graft/core/error.h"
#include "tests/cli/program.h"
#include "tests/hub/hub_server.h"

namespace graft {
namespace {

namespace fs = std::filesystem;
using tests::graft;
using tests::has;
using tests::read_text;

struct HubProgram : testing::Test {
  HubProgram() {
    tests::write_tiny_source(scratch / "tiny");
    tests::write_tiny_data(scratch / "data");
    std::map<std::string, std::string> files;
    for (const auto& entry : fs::directory_iterator(scratch / "tiny"))
      files[entry.path().filename().string()] = read_text(entry.path());
    server.add("org/tiny", files);
  }
  std::vector<std::string> environment(const std::string& more = "HF_HUB_OFFLINE=0") const {
    return {"HF_HOME=" + (scratch / "home").string(),
            "HF_ENDPOINT=" + server.settings("/x").endpoint,
            "HF_TOKEN=hf_right",
            "no_proxy=127.0.0.1",
            "HF_HUB_CACHE=",
            more};
  }
  tests::Scratch scratch;
  tests::HubServer server;
};

TEST_F(HubProgram, PullPrintsTheFolderAndGoesOnOffline) {
  const auto pulled = graft({"pull", "org/tiny"}, "", environment());
  EXPECT_EQ(pulled.code, 0) << pulled.err;
  EXPECT_TRUE(has(pulled.out, "/home/hub/models--org--tiny/snapshots/" + tests::HubServer::commit)) << pulled.out;
  const auto again = graft({"pull", "--json", "org/tiny@main"}, "", environment("HF_HUB_OFFLINE=1"));
  EXPECT_EQ(again.code, 0) << again.err;
  EXPECT_EQ(Json::parse(again.out)["downloaded_bytes"], 0);
  const auto missing = graft({"pull", "org/other"}, "", environment());
  EXPECT_EQ(missing.code, 8);
  EXPECT_TRUE(has(missing.err, "org/other: 127.0.0.1") && has(missing.err, "has no such model")) << missing.err;
  EXPECT_FALSE(has(missing.err, "hf_right"));
  const auto offline = graft({"pull", "org/other"}, "", environment("HF_HUB_OFFLINE=1"));
  EXPECT_EQ(offline.code, 8);
  EXPECT_TRUE(has(offline.err, "There are org/tiny")) << offline.err;
  EXPECT_EQ(graft({"pull", "no such thing"}, "", environment()).code, 2);
  // By the name that the sources.toml beside a recipe gives it.
  server.add_file("weights.pth", "weights");
  tests::write_text(scratch / "lab/sources.toml",
                    fmt::format("[[source]]\nid = 'lab/net'\narchitecture = 'resnet'\norigin = 'url'\nurl = '{}'\n"
                                "files = ['weights.pth']\n",
                                server.url("files/weights.pth")));
  const auto own = graft({"pull", "lab/net", "--recipe", (scratch / "lab/recipe.toml").string()}, "", environment());
  EXPECT_EQ(own.code, 0) << own.err;
  EXPECT_TRUE(has(own.out, "graft/lab--net")) << own.out;
}

TEST_F(HubProgram, ARunTakesItsSourceFromTheHubAndItsRecipeNamesTheCommit) {
  auto arguments = tests::short_run(scratch, "run");
  *(std::find(arguments.begin(), arguments.end(), "--source") + 1) = "org/tiny";
  arguments.insert(arguments.end(), {"--set", "finetune.unfreeze.max_units=0", "--set", "finetune.full.when=never"});
  const auto run = graft(arguments, "", environment());
  ASSERT_EQ(run.code, 0) << run.err;
  EXPECT_TRUE(has(read_text(scratch / "run/recipe.toml"), "source = \"org/tiny@" + tests::HubServer::commit + "\""));
  EXPECT_TRUE(has(read_text(scratch / "run/journal.jsonl"), "\"source\":\"org/tiny\""));
  EXPECT_TRUE(has(read_text(scratch / "run/model/README.md"), "org/tiny"));
  const auto resumed = graft({"run", "--resume", (scratch / "run").string()}, "", environment("HF_HUB_OFFLINE=1"));
  EXPECT_EQ(resumed.code, 0) << resumed.err;
  *(std::find(arguments.begin(), arguments.end(), "--source") + 1) = "org/none";
  *(std::find(arguments.begin(), arguments.end(), "--out") + 1) = (scratch / "second").string();
  const auto missing = graft(arguments, "", environment());
  EXPECT_EQ(missing.code, 8);
  EXPECT_TRUE(has(missing.err, "there is no folder org/none here; as a source by name")) << missing.err;
}

TEST_F(HubProgram, ASourceOfOnesOwnStandsBesideTheRecipe) {
  tests::write_text(scratch / "lab/sources.toml", fmt::format("[[source]]\nid = 'lab/tiny'\narchitecture = 'bert'\n"
                                                              "origin = 'folder'\nurl = '{}'\n",
                                                              (scratch / "tiny").string()));
  tests::write_text(scratch / "lab/recipe.toml",
                    fmt::format("source = 'lab/tiny'\noutput = '{}'\n[data]\npath = '{}'\n", (scratch / "run").string(),
                                (scratch / "data").string()));
  const auto plan = graft({"finetune", "--dry-run", (scratch / "lab/recipe.toml").string()}, "", environment());
  EXPECT_EQ(plan.code, 0) << plan.err;
  EXPECT_TRUE(has(plan.out, "lab/tiny")) << plan.out;
  const auto all = graft({"sources", "--recipe", (scratch / "lab/recipe.toml").string()}, "", environment());
  EXPECT_TRUE(has(all.out, "● " + std::string(13, ' ') + "lab/tiny") && has(all.out, "(here)")) << all.out;
}

TEST_F(HubProgram, SourcesPrintsTheTreeAndNarrowsIt) {
  const auto all = graft({"sources"}, "", environment());
  EXPECT_EQ(all.code, 0) << all.err;
  for (const auto* part :
       {"image\n", "text\n", "multimodal\n", "medical", "google-bert/bert-base-uncased", "StarCoder"})
    EXPECT_TRUE(has(all.out, part)) << part;
  for (const auto* system :
       {"ResNet",    "EfficientNet", "ViT",       "MedCLIP", "RadDINO",  "BioViL", "SatMAE",  "Prithvi",
        "CellViT",   "BioCLIP",      "BERT",      "RoBERTa", "DeBERTa",  "LLaMA",  "SciBERT", "BioMedBERT",
        "LegalBERT", "CodeBERT",     "StarCoder", "CLIP",    "Flamingo", "LLaVA"})
    EXPECT_TRUE(has(all.out, fmt::format(" {:<12} ", system))) << system;
  EXPECT_TRUE(has(all.out, "● ResNet       torchvision/resnet50-v1")) << all.out;
  const auto legal =
      graft({"sources", "--json", "--modality", "text", "--domain", "legal", "--max-size", "450MB"}, "", environment());
  const auto rows = Json::parse(legal.out)["sources"];
  EXPECT_GE(rows.size(), 3u);
  for (const auto& row : rows) EXPECT_TRUE(row["domain"] == "legal" || row["domain"] == "general");
  const auto one = graft({"sources", "microsoft/codebert-base"}, "", environment());
  EXPECT_TRUE(has(one.out, "[not verified]") && has(one.out, "no masked-language head in the file")) << one.out;
  const auto fit = graft({"sources", "--data", (scratch / "data").string()}, "", environment());
  EXPECT_TRUE(has(fit.err, "modality text, domain not shown") && !has(fit.out, "resnet")) << fit.err;
  const auto wrong = graft({"sources", "microsft/codebert-base"}, "", environment());
  EXPECT_EQ(wrong.code, 2);
  EXPECT_TRUE(has(wrong.err, "did you mean microsoft/codebert-base")) << wrong.err;
}

}  // namespace
}  // namespace graft
