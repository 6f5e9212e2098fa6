// Pulling from a hub that breaks in all the ways hubs and networks do.
#include "graft/hub/pull.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <thread>

#include "graft/core/error.h"
#include "graft/core/hash.h"
#include "graft/core/random.h"
#include "graft/hub/http.h"
#include "tests/hub/hub_server.h"

namespace graft::hub {
namespace {

using tests::has;
using tests::HubServer;
using tests::noise;
using tests::read_text;
using tests::Scratch;
using tests::write_text;

const std::string kId = "org/model";

struct Pull : testing::Test {
  Pull() {
    server.add(kId, {{"config.json", "{\"model_type\": \"bert\"}"},
                     {"vocab.txt", "[PAD]\n"},
                     {"model.safetensors", weights},
                     {"pytorch_model.bin", "the same again"},
                     {"tf_model.h5", "and again"},
                     {"README.md", "# model"},
                     {"onnx/model.onnx", "x"}});
  }
  Pulled pull_it(const std::string& revision = "main") { return pull(settings, {kId, revision, {}}, quiet); }
  /// What the person sees.
  std::string sentence(const std::string& id = kId, const std::string& revision = "main") {
    return tests::message_of([&] { pull(settings, {id, revision, {}}, quiet); });
  }
  int weight_requests() { return static_cast<int>(server.requests("/model.safetensors").size()); }
  fs::path blob() const { return settings.cache / "models--org--model/blobs" / sha256(weights); }
  std::vector<fs::path> partials() const {
    std::vector<fs::path> found;
    for (const auto& entry : fs::directory_iterator(settings.cache / "models--org--model/blobs"))
      if (entry.path().extension() == ".incomplete") found.push_back(entry.path());
    return found;
  }

  Scratch scratch;
  HubServer server;
  Settings settings = server.settings(scratch / "home");
  std::string weights = noise(300'000, 1);
  report::Progress quiet{true};
};

TEST_F(Pull, TheLayoutIsThatOfHuggingfaceHub) {
  const auto pulled = pull_it();
  const auto folder = settings.cache / "models--org--model";
  EXPECT_EQ(pulled.folder, folder / "snapshots" / HubServer::commit);
  EXPECT_EQ(read_text(folder / "refs/main"), HubServer::commit);
  const auto link = pulled.folder / "model.safetensors";
  EXPECT_EQ(fs::read_symlink(link), "../../blobs/" + sha256(weights));
  EXPECT_EQ(read_text(link), weights);
  // git hash-object of these bytes
  EXPECT_EQ(fs::read_symlink(pulled.folder / "vocab.txt"), "../../blobs/7d59d1552e25259c1631f1f59a861832f3137588");
  const auto tree = Json::parse(read_text(folder / "trees" / (HubServer::commit + ".json")));
  EXPECT_EQ(tree["files"].size(), 7u);
  EXPECT_EQ(tree["files"]["model.safetensors"]["lfs_sha256"], sha256(weights));
  EXPECT_TRUE(partials().empty());
}

TEST_F(Pull, OnlyWhatGraftNeedsIsFetched) {
  const auto pulled = pull_it();
  std::vector<std::string> names;
  for (const auto& file : pulled.files) names.push_back(file.path);
  EXPECT_EQ(names, (std::vector<std::string>{"config.json", "model.safetensors", "vocab.txt"}));
  EXPECT_FALSE(fs::exists(pulled.folder / "pytorch_model.bin"));
  EXPECT_EQ(server.requests("/resolve/").size(), 3u);
  const auto more = pull(settings, {kId, "main", {"*.bin", "onnx/*"}}, quiet);
  EXPECT_EQ(read_text(more.folder / "onnx/model.onnx"), "x");
  EXPECT_EQ(fs::read_symlink(more.folder / "onnx/model.onnx").string().substr(0, 15), "../../../blobs/");
  EXPECT_TRUE(fs::exists(more.folder / "pytorch_model.bin"));
}

TEST_F(Pull, ASecondCallDownloadsNothingAndTheCacheNeedsNoHub) {
  EXPECT_FALSE(cached(settings, {kId}));
  EXPECT_GT(pull_it().downloaded, 300'000u);
  EXPECT_EQ(pull_it().downloaded, 0u);
  EXPECT_EQ(weight_requests(), 1);
  const auto asked = server.requests().size();
  EXPECT_TRUE(cached(settings, {kId}));
  settings.offline = true;
  EXPECT_EQ(read_text(pull_it().folder / "model.safetensors"), weights);
  EXPECT_EQ(server.requests().size(), asked);
  EXPECT_TRUE(has(sentence("org/other"), "org/other at main: is not complete in"));
  EXPECT_TRUE(has(sentence("org/other"), "There are org/model"));
  EXPECT_FALSE(cached(settings, {kId, "main", {"no_such_file.pt"}}));
  // Half a snapshot is no snapshot.
  fs::remove(cached(settings, {kId})->folder / "vocab.txt");
  EXPECT_FALSE(cached(settings, {kId}));
}

TEST_F(Pull, RevisionsAreBranchesTagsAndCommits) {
  const auto tag = pull_it("v1");
  EXPECT_NE(tag.commit, HubServer::commit);
  EXPECT_EQ(pull_it(HubServer::commit).commit, HubServer::commit);
  EXPECT_FALSE(fs::exists(settings.cache / "models--org--model/refs" / HubServer::commit));
  EXPECT_TRUE(has(sentence(kId, "v9"), "has no revision `v9`"));
  EXPECT_EQ(parse_wish("org/model@v1").revision, "v1");
  EXPECT_TRUE(has(tests::message_of([] { parse_wish("../x"); }), "not a model's name"));
  EXPECT_TRUE(has(tests::message_of([] { parse_wish("org/model@../x"); }), "after @"));
}

TEST_F(Pull, ADroppedConnectionGoesOnWhereItBroke) {
  server.fault({{{"path", "/model.safetensors"}, {"kind", "drop"}, {"at", 100'000}, {"times", 1}},
                {{"path", "/model.safetensors"}, {"kind", "drop"}, {"at", 200'000}, {"times", 1}}});
  EXPECT_EQ(read_text(pull_it().folder / "model.safetensors"), weights);
  const auto requests = server.requests("/model.safetensors");
  ASSERT_EQ(requests.size(), 3u);
  EXPECT_EQ(requests[1]["range"], "bytes=100000-");
  EXPECT_EQ(requests[2]["range"], "bytes=200000-");
}

TEST_F(Pull, AServerWithoutRangesSendsAllOfItAgain) {
  server.fault({{{"path", "/model.safetensors"}, {"kind", "drop"}, {"at", 100'000}, {"times", 1}},
                {{"path", "/model.safetensors"}, {"kind", "whole"}}});
  EXPECT_EQ(read_text(pull_it().folder / "model.safetensors"), weights);
}

TEST_F(Pull, AConnectionThatAlwaysDropsAtTheSamePlaceIsGivenUpAndKept) {
  server.fault({{{"path", "/model.safetensors"}, {"kind", "drop"}, {"at", 1000}}});
  EXPECT_TRUE(has(sentence(), "1000 of 300000 bytes arrived, then nothing more in 4 attempts"));
  ASSERT_EQ(partials().size(), 1u);
  EXPECT_EQ(fs::file_size(partials()[0]), 1000u);
  server.fault(Json::array());
  EXPECT_EQ(read_text(pull_it().folder / "model.safetensors"), weights);
  EXPECT_EQ(server.requests("/model.safetensors").back()["range"], "bytes=1000-");
}

TEST_F(Pull, ASizeThatIsNotTheListedOne) {
  server.fault({{{"path", "/tree/"}, {"kind", "size"}, {"by", -10}}});
  EXPECT_TRUE(has(sentence(), "bytes, the hub's listing says"));
  EXPECT_FALSE(fs::exists(blob()));
  fs::remove_all(settings.home);
  server.fault({{{"path", "/tree/"}, {"kind", "size"}, {"by", 10}}});
  EXPECT_TRUE(has(sentence(), "bytes, the hub's listing says"));
  fs::remove_all(settings.home);
  // A file shorter than it should be, from a server that says so.
  server.fault({{{"path", "/model.safetensors"}, {"kind", "short"}, {"at", 5000}}});
  EXPECT_TRUE(has(sentence(), "says it has 5000 bytes, the hub's listing says 300000"));
}

TEST_F(Pull, WrongBytesAreAskedForOnceMoreAndNeverKept) {
  server.fault({{{"path", "/model.safetensors"}, {"kind", "wrong"}, {"times", 1}}});
  EXPECT_EQ(read_text(pull_it().folder / "model.safetensors"), weights);
  EXPECT_EQ(weight_requests(), 2);
  fs::remove_all(settings.home);
  server.fault({{{"path", "/model.safetensors"}, {"kind", "wrong"}}});
  EXPECT_TRUE(has(sentence(), "but their hash is"));
  EXPECT_FALSE(fs::exists(blob()));
  EXPECT_TRUE(partials().empty());
  EXPECT_FALSE(cached(settings, {kId}));
  fs::remove_all(settings.home);
  server.fault({{{"path", "/vocab.txt"}, {"kind", "wrong"}}});
  EXPECT_TRUE(has(sentence(), "vocab.txt of org/model: 6 bytes arrived"));
}

TEST_F(Pull, MissingPrivateAndGatedRepositoriesAreExplained) {
  EXPECT_TRUE(has(sentence("org/nothing"), "org/nothing: 127.0.0.1"));
  EXPECT_TRUE(has(sentence("org/nothing"), "has no such model, or it is private"));
  server.add("org/gated", {{"config.json", "{}"}, {"model.safetensors", weights}}, {{"gated", true}});
  // The hub lists the files of a gated repository; only the files themselves are refused.
  const auto refused = sentence("org/gated");
  EXPECT_TRUE(has(refused, "org/gated: its owner gives access only to those who accept the licence. Accept it at " +
                               settings.endpoint + "/org/gated, then make a token at " + settings.endpoint +
                               "/settings/tokens and put it into HF_TOKEN"))
      << refused;
  server.fault({{{"path", "/api/"}, {"kind", "status"}, {"code", 403}, {"headers", {{"X-Error-Code", "GatedRepo"}}}}});
  EXPECT_TRUE(has(sentence("org/gated"), "Accept it at " + settings.endpoint + "/org/gated")) << sentence("org/gated");
  EXPECT_TRUE(has(sentence("org/gated"), "/settings/tokens and put it into HF_TOKEN"));
  server.fault(Json::array());
  settings.token = "hf_wrong_9876";
  EXPECT_FALSE(has(sentence("org/gated"), "hf_wrong"));
  EXPECT_TRUE(has(sentence("org/gated"), "check that the token in HF_TOKEN is of an account that has access"));
  EXPECT_FALSE(has(sentence("org/nothing"), "hf_wrong"));
  settings.token = "hf_right";
  EXPECT_EQ(pull(settings, {"org/gated"}, quiet).downloaded, 300'002u);
}

TEST_F(Pull, TheTokenStaysWithTheHub) {
  settings.token = "hf_right";
  server.add(kId, {{"config.json", "{}"}, {"model.safetensors", weights}}, {{"private", false}});
  server.fault({{{"path", "/model.safetensors"}, {"kind", "elsewhere"}}});
  EXPECT_EQ(read_text(pull_it().folder / "model.safetensors"), weights);
  int elsewhere = 0;
  for (const auto& request : server.requests()) {
    const bool other = request["port"] == server.other_port();
    elsewhere += other;
    EXPECT_EQ(request["authorization"], other ? "" : "Bearer hf_right") << request;
  }
  EXPECT_EQ(elsewhere, 1);
  // Nor is it in the sentence when the other host fails, nor the signature in its URL.
  fs::remove_all(settings.home);
  server.fault({{{"path", "signature"}, {"kind", "status"}, {"code", 404}},
                {{"path", "/model.safetensors"}, {"kind", "elsewhere"}}});
  const auto text = sentence();
  EXPECT_TRUE(has(text, "answers with status 404")) << text;
  EXPECT_FALSE(has(text, "hf_right") || has(text, "secret")) << text;
}

TEST_F(Pull, AServerThatIsBusyIsAskedAgainWhenItSays) {
  server.fault(
      {{{"path", "/api/"}, {"kind", "status"}, {"code", 429}, {"headers", {{"Retry-After", "1"}}}, {"times", 1}},
       {{"path", "/model.safetensors"}, {"kind", "status"}, {"code", 503}, {"times", 2}}});
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(read_text(pull_it().folder / "model.safetensors"), weights);
  EXPECT_GE(std::chrono::steady_clock::now() - begin, std::chrono::seconds(1));
  EXPECT_EQ(weight_requests(), 3);
  fs::remove_all(settings.home);
  server.fault({{{"path", "/model.safetensors"}, {"kind", "status"}, {"code", 500}}});
  EXPECT_TRUE(has(sentence(), "0 of 300000 bytes arrived, then nothing more in 4 attempts (status 500)")) << sentence();
  fs::remove_all(settings.home);
  server.fault({{{"path", "/api/"}, {"kind", "status"}, {"code", 502}}});
  EXPECT_TRUE(has(sentence(), "answers with status 502"));
}

TEST_F(Pull, ASlowServerIsWaitedForAStandingOneIsNot) {
  server.fault({{{"path", "/model.safetensors"}, {"kind", "slow"}, {"seconds", 0.002}}});
  EXPECT_EQ(read_text(pull_it().folder / "model.safetensors"), weights);
  fs::remove_all(settings.home);
  settings.download_seconds = 1;
  server.fault({{{"path", "/model.safetensors"}, {"kind", "stall"}, {"at", 70'000}, {"times", 1}}});
  EXPECT_EQ(read_text(pull_it().folder / "model.safetensors"), weights);
  EXPECT_EQ(server.requests("/model.safetensors").back()["range"], "bytes=70000-");
}

TEST_F(Pull, WithoutAConnectionTheCacheIsGoodEnough) {
  pull_it();
  settings.endpoint = "http://127.0.0.1:9";
  settings.attempts = 2;
  EXPECT_EQ(pull_it().commit, HubServer::commit);
  const auto text = sentence("org/other");
  EXPECT_TRUE(has(text, "127.0.0.1:9") && has(text, "After 2 attempts there is no answer")) << text;
  EXPECT_TRUE(has(text, "org/other at main: is not complete in") && has(text, "There are org/model")) << text;
  EXPECT_THROW(pull(settings, {"org/other", "main", {}}, quiet), Unreachable);
}

TEST_F(Pull, TooLittleSpaceIsSaidBeforeAByteIsFetched) {
  server.fault({{{"path", "/tree/"}, {"kind", "size"}, {"by", 1'000'000'000'000'000}}});
  const auto text = sentence();
  EXPECT_TRUE(has(text, "the download of org/model needs") && has(text, "are free")) << text;
  EXPECT_TRUE(server.requests("/resolve/").empty());
}

TEST_F(Pull, AFullDiskKeepsWhatArrived) {
  setenv("GRAFT_TEST_FAULT", "enospc:4:.incomplete", 1);
  settings.parallel = 1;  // so that the fourth operation is one on the largest file, which goes first
  const auto text = sentence();
  unsetenv("GRAFT_TEST_FAULT");
  EXPECT_TRUE(has(text, "free space in") && has(text, "repeat the command")) << text;
  ASSERT_EQ(partials().size(), 1u);
  EXPECT_GT(fs::file_size(partials()[0]), 0u);
  EXPECT_EQ(read_text(pull_it().folder / "model.safetensors"), weights);
  EXPECT_TRUE(has(server.requests("/model.safetensors").back()["range"].get<std::string>(), "bytes="));
}

TEST_F(Pull, AListingCannotLeadOutOfTheCache) {
  for (const auto* path : {"../../../../evil", "/etc/evil", "a/../../evil", ""}) {
    fs::remove_all(settings.home);
    server.fault({{{"path", "/tree/"},
                   {"kind", "listing"},
                   {"entry", {{"type", "file"}, {"path", path}, {"size", 1}, {"oid", std::string(40, '0')}}}}});
    EXPECT_TRUE(has(sentence(), "a path that leaves its folder")) << path;
  }
  fs::remove_all(settings.home);
  server.fault({{{"path", "/tree/"},
                 {"kind", "listing"},
                 {"entry", {{"type", "file"}, {"path", "x"}, {"size", 1}, {"oid", "../../x"}}}}});
  EXPECT_TRUE(has(sentence(), "has no hash for x"));
}

/// Pulls in a process of its own, which begins without the server's threads or handles.
pid_t pull_in_a_process(const Settings& settings) {
  const pid_t child = fork();
  if (child != 0) return child;
  try {
    report::Progress quiet(true);
    pull(settings, {kId}, quiet);
    _exit(0);
  } catch (const std::exception& e) {
    fprintf(stderr, "in the process: %s\n", e.what());
    _exit(1);
  }
}

TEST_F(Pull, ADownloadKilledAtTwentyRandomBytesEndsWithTheRightHash) {
  Random random(20);
  std::vector<size_t> places{1, weights.size() - 1};
  while (places.size() < 20) places.push_back(1 + random.below(weights.size() - 1));
  for (const auto at : places) {
    fs::remove_all(settings.home);
    server.fault({{{"path", "/model.safetensors"}, {"kind", "stall"}, {"at", at}, {"times", 1}}});
    const auto child = pull_in_a_process(settings);
    const auto arrived = [&] {
      if (!fs::exists(blob().parent_path())) return false;
      const auto files = partials();
      return std::any_of(files.begin(), files.end(), [&](const auto& file) {
        std::error_code gone;
        return file.filename().string().starts_with(sha256(weights)) && fs::file_size(file, gone) == at;
      });
    };
    for (int i = 0; i < 2000 && !arrived(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    EXPECT_TRUE(arrived()) << at;
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    EXPECT_EQ(read_text(pull_it().folder / "model.safetensors"), weights);
    EXPECT_EQ(server.requests("/model.safetensors").back()["range"], fmt::format("bytes={}-", at));
    EXPECT_TRUE(partials().empty());
  }
}

TEST_F(Pull, TwoProcessesAtOnceBothSucceedAndFetchOnce) {
  server.fault({{{"path", "/model.safetensors"}, {"kind", "slow"}, {"seconds", 0.003}}});
  const pid_t children[] = {pull_in_a_process(settings), pull_in_a_process(settings)};
  for (const auto child : children) {
    int status = 0;
    waitpid(child, &status, 0);
    EXPECT_EQ(status, 0);
  }
  EXPECT_EQ(weight_requests(), 1);
  EXPECT_EQ(read_text(cached(settings, {kId})->folder / "model.safetensors"), weights);
  EXPECT_TRUE(partials().empty());
}

TEST_F(Pull, FilesComeAtTheSameTimeAndTheProgressIsOfAllOfThem) {
  std::map<std::string, std::string> shards{{"config.json", "{}"}};
  for (int i = 1; i <= 4; ++i)
    shards[fmt::format("model-0000{}-of-00004.safetensors", i)] = noise(400'000, static_cast<uint64_t>(i));
  Json map = Json::object();
  for (const auto& [name, content] : shards) map["weight_map"][name] = name;
  shards["model.safetensors.index.json"] = map.dump();
  server.add("org/shards", shards);
  // Each of the four takes at least 0.4 s: one after the other they would take 1.6 s.
  server.fault({{{"path", "-of-00004"}, {"kind", "slow"}, {"seconds", 0.001}}});
  const auto seconds = [&](int parallel, const std::string& home) {
    settings = server.settings(scratch / home);
    settings.parallel = parallel;
    const auto begin = std::chrono::steady_clock::now();
    testing::internal::CaptureStderr();
    report::Progress progress(false);
    EXPECT_GT(pull(settings, {"org/shards"}, progress).downloaded, 1'600'000u);
    const auto printed = testing::internal::GetCapturedStderr();
    EXPECT_TRUE(has(printed, "org/shards at main: 6 files, 1.6 MB from 127.0.0.1")) << printed;
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  };
  const auto together = seconds(4, "together"), in_turn = seconds(1, "in_turn");
  EXPECT_GT(in_turn, 1.6);
  EXPECT_LT(together, 0.8 * in_turn);
}

TEST_F(Pull, ATerminalIsShownHowFarItIs) {
  server.add("org/large", {{"config.json", "{}"}, {"model.safetensors", noise(2'000'000, 5)}});
  server.fault({{{"path", "/model.safetensors"}, {"kind", "slow"}, {"seconds", 0.0005}}});
  const int master = posix_openpt(O_RDWR | O_NOCTTY);
  ASSERT_TRUE(master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0);
  const int slave = open(ptsname(master), O_RDWR | O_NOCTTY), before = dup(STDERR_FILENO);
  dup2(slave, STDERR_FILENO);
  {
    report::Progress progress(false);
    pull(settings, {"org/large"}, progress);
  }
  dup2(before, STDERR_FILENO);
  close(before);
  std::string seen;
  char piece[4096];
  fcntl(master, F_SETFL, O_NONBLOCK);
  for (ssize_t n; (n = read(master, piece, sizeof piece)) > 0;) seen.append(piece, static_cast<size_t>(n));
  close(slave);
  close(master);
  EXPECT_TRUE(has(seen, "org/large, MB  1/3")) << seen;
}

TEST_F(Pull, AnUnfinishedFileBelongsToItsProcessWhileThatLives) {
  const auto folder = blob().parent_path();
  fs::create_directories(folder);
  const auto own = claim_partial(blob());
  write_text(own, weights.substr(0, 500));
  // Another process does not touch it, with or without locks, and takes it when its owner is dead.
  const pid_t child = fork();
  if (child == 0) _exit(claim_partial(blob()) != own && fs::exists(own) ? 0 : 1);
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
  const pid_t dying = fork();
  if (dying == 0) {
    write_text(claim_partial(blob()), weights.substr(0, 900));
    _exit(0);
  }
  waitpid(dying, nullptr, 0);
  fs::remove(own);
  EXPECT_EQ(claim_partial(blob()), own);
  EXPECT_EQ(fs::file_size(own), 900u);
  fs::remove(own);
  // One without a known owner is huggingface_hub's: it is taken when nobody has written to it for ten minutes.
  const auto foreign = folder / (sha256(weights) + ".1a2b3c4d.incomplete");
  write_text(foreign, weights.substr(0, 700));
  claim_partial(blob());
  EXPECT_TRUE(fs::exists(foreign));
  fs::last_write_time(foreign, fs::file_time_type::clock::now() - std::chrono::minutes(11));
  EXPECT_EQ(fs::file_size(claim_partial(blob())), 700u);
  EXPECT_FALSE(fs::exists(foreign));
}

TEST_F(Pull, ACacheWithoutAListingIsUsedWhenItHoldsWeights) {
  const auto folder = settings.cache / "models--org--old/snapshots" / HubServer::commit;
  write_text(settings.cache / "models--org--old/refs/main", HubServer::commit);
  write_text(folder / "config.json", "{}");
  EXPECT_FALSE(cached(settings, {"org/old"}));
  write_text(folder / "model.safetensors.index.json",
             R"({"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}})");
  write_text(folder / "one.safetensors", "");
  EXPECT_FALSE(cached(settings, {"org/old"}));
  write_text(folder / "two.safetensors", "");
  EXPECT_TRUE(cached(settings, {"org/old"}));
  EXPECT_EQ(cached_ids(settings), std::vector<std::string>{"org/old"});
}

TEST_F(Pull, ABlobThatIsCutOffIsFetchedAgain) {
  pull_it();
  fs::resize_file(blob(), 1000);
  EXPECT_FALSE(cached(settings, {kId}));
  EXPECT_EQ(read_text(pull_it().folder / "model.safetensors"), weights);
}

TEST_F(Pull, AUrlWithItsHash) {
  server.add_file("release.pth", weights);
  const auto url = server.url("files/release.pth"), right = sha256(weights);
  const auto target = scratch / "release.pth";
  server.fault({{{"path", "/files/"}, {"kind", "drop"}, {"at", 5000}, {"times", 1}}});
  EXPECT_EQ(fetch_url(settings, url, right, target, quiet), right);
  EXPECT_EQ(read_text(target), weights);
  fs::remove(target);
  EXPECT_EQ(fetch_url(settings, url, "", target, quiet), right);
  fs::remove(target);
  EXPECT_TRUE(has(tests::message_of([&] { fetch_url(settings, url, std::string(64, '0'), target, quiet); }), right));
  EXPECT_FALSE(fs::exists(target));
  EXPECT_TRUE(has(tests::message_of([&] { fetch_url(settings, url + ".x", right, target, quiet); }), "status 404"));
}

}  // namespace
}  // namespace graft::hub
