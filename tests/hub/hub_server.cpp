#include "tests/hub/hub_server.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <sstream>
#include <stdexcept>

#include "graft/core/error.h"
#include "graft/core/random.h"

namespace graft::tests {

const std::string HubServer::commit = std::string(38, 'a') + "01";

HubServer::HubServer() : hub_{{"repositories", Json::object()}, {"faults", Json::array()}} {
  setenv("no_proxy", "127.0.0.1", 1);
  write();
  int in[2], out[2];
  if (pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC)) throw std::runtime_error("no pipe");
  const auto script = fixture("hub/hub_server.py").string(), folder = folder_.path.string();
  process_ = fork();
  if (process_ == 0) {
    dup2(in[0], 0);
    dup2(out[1], 1);
    execlp("python3", "python3", script.c_str(), folder.c_str(), nullptr);
    _exit(127);
  }
  close(in[0]);
  close(out[1]);
  input_ = in[1];
  std::string line;
  for (char c; read(out[0], &c, 1) == 1 && c != '\n';) line += c;
  close(out[0]);
  if (line.empty()) throw std::runtime_error("the hub of the tests did not start");
  ports_ = Json::parse(line).get<std::vector<int>>();
}

HubServer::~HubServer() {
  close(input_);
  kill(process_, SIGTERM);
  waitpid(process_, nullptr, 0);
}

void HubServer::add(const std::string& id, const std::map<std::string, std::string>& files, const Json& more) {
  Json entry{{"revisions", {{"main", commit}, {"v1", std::string(38, 'b') + "02"}}}, {"files", Json::object()}};
  for (const auto& [path, content] : files) {
    const auto file = fmt::format("{}", std::hash<std::string>()(id + path));
    write_text(folder_ / file, content);
    entry["files"][path] = file;
  }
  entry["large"] = {"model.safetensors", "pytorch_model.bin"};
  entry.update(more);
  hub_["repositories"][id] = entry;
  write();
}

void HubServer::fault(const Json& faults) {
  hub_["faults"] = faults;
  write();
}

void HubServer::add_file(const std::string& name, const std::string& content) { write_text(folder_ / name, content); }

std::string HubServer::url(const std::string& path) const {
  return fmt::format("http://127.0.0.1:{}/{}", ports_[0], path);
}

std::vector<Json> HubServer::requests(const std::string& part) const {
  std::vector<Json> found;
  if (!fs::exists(folder_ / "log.jsonl")) return found;
  std::istringstream lines(read_text(folder_ / "log.jsonl"));
  for (std::string line; std::getline(lines, line);) {
    auto entry = Json::parse(line);
    if (entry["path"].get<std::string>().find(part) != std::string::npos) found.push_back(std::move(entry));
  }
  return found;
}

hub::Settings HubServer::settings(const fs::path& home) const {
  hub::Settings settings;
  settings.home = home;
  settings.cache = home / "hub";
  settings.endpoint = fmt::format("http://127.0.0.1:{}", ports_[0]);
  settings.first_pause = 0.01;
  settings.answer_seconds = 5;
  settings.attempts = 4;
  return settings;
}

void HubServer::write() const {
  // The server reads while the test writes.
  write_text(folder_ / "hub.new", hub_.dump());
  fs::rename(folder_ / "hub.new", folder_ / "hub.json");
}

std::string noise(size_t size, uint64_t seed) {
  Random random(seed);
  std::string bytes(size, '\0');
  for (auto& byte : bytes) byte = static_cast<char>(random.below(256));
  return bytes;
}

}  // namespace graft::tests
