// Where the hub is, where its cache lies and who asks: the environment variables of huggingface_hub, with its defaults.
#pragma once

#include <filesystem>
#include <string>

namespace graft::hub {

namespace fs = std::filesystem;

struct Settings {
  fs::path home;         // HF_HOME, else $XDG_CACHE_HOME/huggingface, else ~/.cache/huggingface
  fs::path cache;        // HF_HUB_CACHE, else home/hub
  std::string endpoint;  // HF_ENDPOINT, else https://huggingface.co; without a / at its end
  std::string token;     // HF_TOKEN, else the file HF_TOKEN_PATH (home/token); never part of a message
  bool offline = false;  // HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE: no request at all

  int answer_seconds = 10;    // HF_HUB_ETAG_TIMEOUT: for a connection, and for the first byte of an answer
  int download_seconds = 10;  // HF_HUB_DOWNLOAD_TIMEOUT: how long a download may stand still
  int attempts = 6;           // without a byte of progress between them
  double first_pause = 1;     // seconds before the second attempt; doubles, and Retry-After goes before it
  int parallel = 4;           // files at a time

  static Settings from_environment();
};

}  // namespace graft::hub
