// `graft cache` lists, verifies and prunes stores, and touches nothing else.
#include "graft/features/cache.h"

#include <gtest/gtest.h>

#include "graft/features/store.h"
#include "tests/cli/program.h"
#include "tests/fixtures.h"
#include "tests/models/cases.h"

namespace graft::features {
namespace {

using namespace tests;
using tests::graft;

class CacheTest : public testing::Test {
 protected:
  void SetUp() override {
    c.model->unfreeze_only({"head"});
    c.model->name = "tiny";
    capture(*c.model, "text", {1, 3}, c.model->head->reads(), *c.inputs, folder.path, {});
    write_text(folder / "notes.safetensors", "of somebody else");
  }
  fs::path with_boundary(const std::string& boundary) const {
    for (const auto& entry : stores_in(folder.path, false))
      if (entry.made_of["boundary"] == boundary) return entry.file;
    return {};
  }
  Case c{"bert_classification"};
  Scratch folder;
};

TEST_F(CacheTest, ListsWhatEachStoreWasMadeOf) {
  const auto entries = stores_in(folder.path, true);
  ASSERT_EQ(entries.size(), 2u);
  for (const auto& entry : entries) {
    EXPECT_EQ(entry.damage, "");
    EXPECT_EQ(entry.bytes, fs::file_size(entry.file));
    EXPECT_LT(entry.idle_days, 0.1);
    EXPECT_EQ(entry.made_of["source"], "tiny");
    EXPECT_EQ(entry.made_of["examples"], "12");
  }
  EXPECT_FALSE(with_boundary("1").empty());
  EXPECT_FALSE(with_boundary("3").empty());
}

TEST_F(CacheTest, ARunsFolderIsAskedForItsFeatures) {
  const Scratch run;
  fs::copy(folder.path, run / "features");
  EXPECT_EQ(stores_in(run.path, false).size(), 2u);
  EXPECT_TRUE(message_of([&] { stores_in(run / "nowhere", false); }).find("there is no such folder") !=
              std::string::npos);
}

TEST_F(CacheTest, VerifyNamesTheExampleThatIsDamaged) {
  const auto file = with_boundary("1");
  auto bytes = read_text(file);
  uint64_t header = 0;
  std::memcpy(&header, bytes.data(), 8);
  bytes[8 + header] ^= 1;
  write_text(file, bytes);
  const auto found = graft({"cache", "verify", folder.path.string(), "--json"});
  EXPECT_EQ(found.code, static_cast<int>(Kind::data));
  EXPECT_NE(found.out.find("hidden of example 0"), std::string::npos) << found.out;
  EXPECT_EQ(graft({"cache", "list", folder.path.string()}).code, 0);

  EXPECT_EQ(graft({"cache", "prune", folder.path.string(), "--damaged"}).code, 0);
  EXPECT_FALSE(fs::exists(file));
  EXPECT_EQ(stores_in(folder.path, true).size(), 1u);
  EXPECT_TRUE(fs::exists(folder / "notes.safetensors"));
}

TEST_F(CacheTest, TheRulesOfPruning) {
  const auto entry = [](uint64_t bytes, double idle, const std::string& damage = "") {
    return StoreEntry{.file = fmt::format("{}-{}", bytes, idle), .bytes = bytes, .idle_days = idle, .damage = damage};
  };
  const std::vector<StoreEntry> all{entry(50, 0), entry(70, 1), entry(10, 2, "bad"), entry(20, 9)};
  const auto bytes = [&](const PruneRules& rules) {
    std::vector<uint64_t> gone;
    for (const auto& e : to_prune(all, rules)) gone.push_back(e.bytes);
    return gone;
  };
  using Bytes = std::vector<uint64_t>;
  EXPECT_EQ(bytes({}), Bytes{});
  EXPECT_EQ(bytes({.damaged = true}), Bytes{10});
  EXPECT_EQ(bytes({.idle_days = 1.5}), (Bytes{10, 20}));
  EXPECT_EQ(bytes({.max_bytes = 0}), (Bytes{50, 70, 10, 20}));
  EXPECT_EQ(bytes({.max_bytes = 100}), (Bytes{70, 10, 20})) << "the least recently used go first";
  EXPECT_EQ(bytes({.damaged = true, .max_bytes = 140}), (Bytes{10}));
}

TEST_F(CacheTest, PruneWithoutARuleRemovesAllStoresAndADryRunNone) {
  EXPECT_EQ(graft({"cache", "prune", folder.path.string(), "--dry-run"}).code, 0);
  EXPECT_EQ(stores_in(folder.path, false).size(), 2u);
  EXPECT_EQ(graft({"cache", "prune", folder.path.string()}).code, 0);
  EXPECT_EQ(stores_in(folder.path, false).size(), 0u);
  EXPECT_TRUE(fs::exists(folder / "notes.safetensors"));
}

}  // namespace
}  // namespace graft::features
