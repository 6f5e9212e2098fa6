// Where the hub is and who asks, from the environment, as huggingface_hub reads it.
#include "graft/hub/settings.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <map>
#include <optional>

#include "tests/fixtures.h"

namespace graft::hub {
namespace {

/// The variables that Settings reads, all unset but those given; as they were, afterwards.
class Environment {
 public:
  explicit Environment(const std::map<std::string, std::string>& given) {
    for (const auto* name : kNames) {
      const char* value = std::getenv(name);
      before_[name] = value ? std::optional<std::string>(value) : std::nullopt;
      unsetenv(name);
    }
    for (const auto& [name, value] : given) setenv(name.c_str(), value.c_str(), 1);
  }
  ~Environment() {
    for (const auto& [name, value] : before_)
      if (value) setenv(name.c_str(), value->c_str(), 1);
      else unsetenv(name.c_str());
  }

 private:
  static constexpr const char* kNames[] = {"HOME",
                                           "HF_HOME",
                                           "XDG_CACHE_HOME",
                                           "HF_HUB_CACHE",
                                           "HUGGINGFACE_HUB_CACHE",
                                           "HF_ENDPOINT",
                                           "HF_TOKEN",
                                           "HUGGING_FACE_HUB_TOKEN",
                                           "HF_TOKEN_PATH",
                                           "HF_HUB_DISABLE_IMPLICIT_TOKEN",
                                           "HF_HUB_OFFLINE",
                                           "TRANSFORMERS_OFFLINE",
                                           "HF_HUB_ETAG_TIMEOUT",
                                           "HF_HUB_DOWNLOAD_TIMEOUT"};
  std::map<std::string, std::optional<std::string>> before_;
};

Settings with(std::map<std::string, std::string> given) {
  given.emplace("HOME", "/home/me");
  const Environment environment(given);
  return Settings::from_environment();
}

TEST(Settings, TheCacheIsWhereTheVariablesSay) {
  EXPECT_EQ(with({}).cache, "/home/me/.cache/huggingface/hub");
  EXPECT_EQ(with({{"XDG_CACHE_HOME", "/xdg"}}).cache, "/xdg/huggingface/hub");
  EXPECT_EQ(with({{"XDG_CACHE_HOME", "/xdg"}, {"HF_HOME", "/hf"}}).cache, "/hf/hub");
  EXPECT_EQ(with({{"HF_HOME", "~/models"}}).home, "/home/me/models");
  const auto both = with({{"HF_HOME", "/hf"}, {"HF_HUB_CACHE", "/cache"}, {"HUGGINGFACE_HUB_CACHE", "/older"}});
  EXPECT_EQ(both.cache, "/cache");
  EXPECT_EQ(both.home, "/hf") << "the token and files by URL stay at home";
  EXPECT_EQ(with({{"HUGGINGFACE_HUB_CACHE", "~/older"}}).cache, "/home/me/older");
  EXPECT_EQ(with({{"HF_HUB_CACHE", ""}}).cache, "/home/me/.cache/huggingface/hub") << "empty is not given";
}

TEST(Settings, TheEndpointIsWithoutASlashAtItsEnd) {
  EXPECT_EQ(with({}).endpoint, "https://huggingface.co");
  EXPECT_EQ(with({{"HF_ENDPOINT", "https://mirror.example//"}}).endpoint, "https://mirror.example");
}

TEST(Settings, TheTokenIsOfTheVariableElseOfTheFile) {
  const tests::Scratch scratch;
  const auto home = scratch.path.string();
  EXPECT_EQ(with({{"HF_HOME", home}}).token, "");
  tests::write_text(scratch / "token", "  hf_of_the_file\n");
  EXPECT_EQ(with({{"HF_HOME", home}}).token, "hf_of_the_file");
  EXPECT_EQ(with({{"HF_HOME", home}, {"HF_TOKEN", " hf_of_the_variable\n"}}).token, "hf_of_the_variable");
  EXPECT_EQ(with({{"HF_HOME", home}, {"HUGGING_FACE_HUB_TOKEN", "hf_old"}}).token, "hf_old");
  tests::write_text(scratch / "elsewhere", "hf_elsewhere");
  EXPECT_EQ(with({{"HF_HOME", home}, {"HF_TOKEN_PATH", home + "/elsewhere"}}).token, "hf_elsewhere");
  for (const auto* yes : {"1", "true", "YES", "on"})
    EXPECT_EQ(with({{"HF_HOME", home}, {"HF_HUB_DISABLE_IMPLICIT_TOKEN", yes}}).token, "") << yes;
  EXPECT_EQ(with({{"HF_HOME", home}, {"HF_HUB_DISABLE_IMPLICIT_TOKEN", "0"}}).token, "hf_of_the_file");
}

TEST(Settings, OfflineAndTimeouts) {
  EXPECT_FALSE(with({}).offline);
  EXPECT_TRUE(with({{"HF_HUB_OFFLINE", "1"}}).offline);
  EXPECT_TRUE(with({{"TRANSFORMERS_OFFLINE", "on"}}).offline);
  EXPECT_FALSE(with({{"HF_HUB_OFFLINE", "0"}}).offline);
  const auto slow = with({{"HF_HUB_ETAG_TIMEOUT", "30"}, {"HF_HUB_DOWNLOAD_TIMEOUT", "much"}});
  EXPECT_EQ(slow.answer_seconds, 30);
  EXPECT_EQ(slow.download_seconds, Settings().download_seconds);
}

}  // namespace
}  // namespace graft::hub
