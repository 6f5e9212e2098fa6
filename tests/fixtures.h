// Where the tests' files are, and a scratch folder for each test.
#pragma once

#include <filesystem>
#include <string>

namespace graft::tests {

namespace fs = std::filesystem;

/// tests/<name>, for example fixture("parity/bert-mlm").
fs::path fixture(const std::string& name);

/// shared/<name> beside the repository: published weights and real data, which are not copied into it. A test that wants
/// them is skipped, and says so, where they are not.
fs::path shared(const std::string& name);

/// An empty folder that goes away with the object.
struct Scratch {
  Scratch();
  ~Scratch();
  fs::path path;
  fs::path operator/(const std::string& name) const { return path / name; }
};

std::string read_text(const fs::path& path);
void write_text(const fs::path& path, const std::string& text);

inline bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

/// The text of the exception that `action` throws; "" when it throws none.
template <class Action>
std::string message_of(Action&& action) {
  try {
    action();
  } catch (const std::exception& e) {
    return e.what();
  }
  return "";
}

}  // namespace graft::tests
