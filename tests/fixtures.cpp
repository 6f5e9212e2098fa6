#include "tests/fixtures.h"

#include <unistd.h>

#include <fstream>
#include <sstream>
#include <stdexcept>

namespace graft::tests {

fs::path fixture(const std::string& name) { return fs::path(GRAFT_TESTS_DIR) / name; }

fs::path shared(const std::string& name) {
  return fs::path(GRAFT_TESTS_DIR).parent_path().parent_path() / "shared" / name;
}

Scratch::Scratch() {
  std::string pattern = (fs::temp_directory_path() / "graft-test-XXXXXX").string();
  if (!mkdtemp(pattern.data())) throw std::runtime_error("no scratch folder: " + pattern);
  path = pattern;
}

Scratch::~Scratch() {
  std::error_code ignored;
  fs::remove_all(path, ignored);
}

std::string read_text(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("cannot read " + path.string());
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

void write_text(const fs::path& path, const std::string& text) {
  fs::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << text;
}

}  // namespace graft::tests
