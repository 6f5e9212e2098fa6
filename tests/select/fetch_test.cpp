// Sources from elsewhere than the hub: a file of a release, a zip with the weights in it, a folder of one's own.
#include "graft/select/fetch.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include "graft/core/error.h"
#include "graft/core/hash.h"
#include "graft/io/zip.h"
#include "tests/hub/hub_server.h"

namespace graft::select {
namespace {

using tests::has;
using tests::HubServer;
using tests::noise;
using tests::read_text;
using tests::Scratch;

struct Fetch : testing::Test {
  Fetch() {
    // Python's own writer: a folder in the archive, one file deflated and one stored.
    tests::write_text(scratch / "weights/model.pth", weights);
    tests::write_text(scratch / "weights/readme.txt", std::string(5000, 'x'));
    const auto command =
        "cd " + scratch.path.string() +
        " && python3 -c \"import zipfile; z = zipfile.ZipFile('a.zip', 'w', zipfile.ZIP_DEFLATED); "
        "z.write('weights/model.pth'); z.write('weights/readme.txt', compress_type=zipfile.ZIP_STORED)\"";
    EXPECT_EQ(std::system(command.c_str()), 0);
    archive = read_text(scratch / "a.zip");
    server.add_file("a.zip", archive);
    server.add_file("model.pth", weights);
  }
  FetchedSource fetch(const std::string& more) {
    const auto rows = read_catalogue("[[source]]\nid = 'lab/net'\narchitecture = 'x'\n" + more, "mine", false);
    auto source = fetch_source(settings, "lab/net", rows, {}, quiet);
    const auto local = local_source(settings, "lab/net", rows);
    EXPECT_TRUE(local && local->folder == source.folder);
    return source;
  }
  Scratch scratch;
  HubServer server;
  hub::Settings settings = server.settings(scratch / "home");
  std::string weights = noise(40'000, 3) + std::string(2'000'000, 'a'), archive;
  report::Progress quiet{true};
};

TEST_F(Fetch, AFileOfARelease) {
  const auto source = fetch(fmt::format("origin = 'url'\nurl = '{}'\nsha256 = '{}'\nfiles = ['model.pth']",
                                        server.url("files/model.pth"), sha256(weights)));
  EXPECT_EQ(read_text(source.folder / "model.pth"), weights);
  EXPECT_EQ(source.pinned, "lab/net");
  EXPECT_TRUE(has(tests::message_of([&] {
                    settings.home = scratch / "other";
                    fetch(fmt::format("origin = 'url'\nurl = '{}'\nsha256 = '{}'\nfiles = ['model.pth']",
                                      server.url("files/model.pth"), std::string(64, '1')));
                  }),
                  "their hash is " + sha256(weights)));
}

TEST_F(Fetch, AZipWithTheWeightsInIt) {
  const auto source =
      fetch(fmt::format("origin = 'zip'\nurl = '{}'\nfiles = ['model.pth']", server.url("files/a.zip")));
  EXPECT_EQ(read_text(source.folder / "model.pth"), weights);
  EXPECT_EQ(source.hashes.at("archive.zip"), sha256(archive));  // which nobody had published
  EXPECT_FALSE(fs::exists(source.folder / "archive.zip"));
  settings.home = scratch / "other";
  EXPECT_TRUE(has(tests::message_of([&] {
                    fetch(fmt::format("origin = 'zip'\nurl = '{}'\nfiles = ['x.pth']", server.url("files/a.zip")));
                  }),
                  "the archive has no x.pth; it has weights/model.pth, weights/readme.txt"));
}

TEST_F(Fetch, BareWeightsGetTheirPreprocessing) {
  const auto row = fmt::format("origin = 'url'\nurl = '{}'\nfiles = ['model.pth']\n", server.url("files/model.pth"));
  EXPECT_FALSE(fs::exists(fetch(row).folder / "transform.json"));
  // What an older graft fetched is completed without a request.
  const auto asked = server.requests().size();
  const auto source = fetch(row + "transform = { resize_size = 256, crop_size = 224 }");
  EXPECT_EQ(Json::parse(read_text(source.folder / "transform.json")), (Json{{"resize_size", 256}, {"crop_size", 224}}));
  EXPECT_EQ(server.requests().size(), asked);
}

TEST_F(Fetch, TooLittleSpaceIsSaidBeforeAByteIsFetched) {
  const auto row = fmt::format("origin = 'zip'\nurl = '{}'\nfiles = ['model.pth']\n", server.url("files/a.zip"));
  const auto text = tests::message_of([&] { fetch(row + "download_mb = 1000000000"); });
  EXPECT_TRUE(has(text, "the download of lab/net needs") && has(text, "are free")) << text;
  EXPECT_TRUE(server.requests().empty());
}

TEST_F(Fetch, TwoProcessesOnOneArchiveBothSucceedAndFetchOnce) {
  server.fault({{{"path", "/files/"}, {"kind", "slow"}, {"seconds", 0.003}}});
  const auto row = fmt::format("origin = 'zip'\nurl = '{}'\nfiles = ['model.pth']\n", server.url("files/a.zip"));
  std::vector<pid_t> children;
  for (int i = 0; i < 2; ++i) {
    const auto child = fork();
    if (child == 0) {
      try {
        fetch(row);
        _exit(0);
      } catch (const std::exception& e) {
        fprintf(stderr, "in the process: %s\n", e.what());
        _exit(1);
      }
    }
    children.push_back(child);
  }
  for (const auto child : children) {
    int status = 0;
    waitpid(child, &status, 0);
    EXPECT_EQ(status, 0);
  }
  EXPECT_EQ(server.requests("/files/").size(), 1u);
  EXPECT_EQ(read_text(fetch(row).folder / "model.pth"), weights);
}

TEST_F(Fetch, DamagedArchivesAreRefused) {
  EXPECT_EQ(io::zip_names(archive, "a").size(), 2u);
  const auto unpack = [&](const std::string& bytes) {
    return tests::message_of([&] { io::unpack_zip_file(bytes, "a", "weights/model.pth", scratch / "out"); });
  };
  EXPECT_EQ(unpack(archive), "");
  auto changed = archive;
  changed[20'000] ^= 1;  // in the deflated bytes
  EXPECT_TRUE(has(unpack(changed), "damaged")) << unpack(changed);
  EXPECT_TRUE(has(unpack(archive.substr(0, archive.size() / 2)), "damaged"));
  EXPECT_EQ(read_text(scratch / "out"), weights);  // as the good one left it
}

TEST_F(Fetch, AFolderOfOnesOwnAndARepositoryWithAPinnedRevision) {
  tests::write_text(scratch / "own/config.json", "{}");
  const auto own = fetch(fmt::format("origin = 'folder'\nurl = '{}'", (scratch / "own").string()));
  EXPECT_EQ(own.folder, scratch / "own");
  server.add("lab/net", {{"config.json", "{}"}, {"image.pt", weights}});
  const auto pinned = fetch("revision = 'v1'\nfiles = ['image.pt']");
  EXPECT_EQ(pinned.revision, "v1");
  EXPECT_EQ(read_text(pinned.folder / "image.pt"), weights);
  EXPECT_EQ(pinned.pinned, "lab/net@" + pinned.commit);
}

}  // namespace
}  // namespace graft::select
