#include "graft/hub/settings.h"

#include <algorithm>
#include <cstdlib>

#include "graft/core/text.h"
#include "graft/io/file.h"

namespace graft::hub {
namespace {

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

bool is_true(const std::string& text) {
  std::string upper = text;
  std::transform(upper.begin(), upper.end(), upper.begin(), [](unsigned char c) { return std::toupper(c); });
  return upper == "1" || upper == "ON" || upper == "YES" || upper == "TRUE";
}

fs::path expanded(const std::string& path) {
  if (path == "~" || path.starts_with("~/"))
    return fs::path(variable("HOME")) / path.substr(std::min<size_t>(2, path.size()));
  return path;
}

int seconds(const char* name, int otherwise) {
  const auto value = std::atoi(variable(name).c_str());
  return value > 0 ? value : otherwise;
}

}  // namespace

Settings Settings::from_environment() {
  Settings settings;
  const auto home = variable("HF_HOME"), xdg = variable("XDG_CACHE_HOME");
  settings.home = !home.empty() ? expanded(home) : (xdg.empty() ? expanded("~/.cache") : expanded(xdg)) / "huggingface";
  auto cache = variable("HF_HUB_CACHE");
  if (cache.empty()) cache = variable("HUGGINGFACE_HUB_CACHE");  // its older name
  settings.cache = cache.empty() ? settings.home / "hub" : expanded(cache);

  settings.endpoint = variable("HF_ENDPOINT");
  if (settings.endpoint.empty()) settings.endpoint = "https://huggingface.co";
  while (settings.endpoint.ends_with('/')) settings.endpoint.pop_back();

  if (!is_true(variable("HF_HUB_DISABLE_IMPLICIT_TOKEN"))) {
    settings.token = trimmed(variable("HF_TOKEN"));
    if (settings.token.empty()) settings.token = trimmed(variable("HUGGING_FACE_HUB_TOKEN"));
    const auto path = variable("HF_TOKEN_PATH");
    const auto file = path.empty() ? settings.home / "token" : expanded(path);
    std::error_code unreadable;
    if (settings.token.empty() && fs::is_regular_file(file, unreadable)) settings.token = trimmed(io::read_file(file));
  }
  settings.offline = is_true(variable("HF_HUB_OFFLINE")) || is_true(variable("TRANSFORMERS_OFFLINE"));
  settings.answer_seconds = seconds("HF_HUB_ETAG_TIMEOUT", settings.answer_seconds);
  settings.download_seconds = seconds("HF_HUB_DOWNLOAD_TIMEOUT", settings.download_seconds);
  return settings;
}

}  // namespace graft::hub
