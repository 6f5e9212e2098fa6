#include "graft/hub/content_hash.h"

#include <openssl/evp.h>

#include "graft/core/error.h"

namespace graft::hub {

struct ContentHash::State {
  EVP_MD_CTX* context = EVP_MD_CTX_new();
  const EVP_MD* method = nullptr;
  std::string head;  // git hashes "blob <size>" and a zero byte before the content
  ~State() { EVP_MD_CTX_free(context); }
};

ContentHash::ContentHash(const std::string& name, uint64_t size) : state_(std::make_unique<State>()) {
  const bool git = name.size() == 40;
  state_->method = git ? EVP_sha1() : EVP_sha256();
  if (git) state_->head = fmt::format("blob {}", size) + '\0';
  restart();
}

ContentHash::~ContentHash() = default;

void ContentHash::restart() {
  GRAFT_ASSERT(state_->context && EVP_DigestInit_ex(state_->context, state_->method, nullptr) == 1);
  update(state_->head);
}

void ContentHash::update(std::string_view bytes) {
  GRAFT_ASSERT(EVP_DigestUpdate(state_->context, bytes.data(), bytes.size()) == 1);
}

std::string ContentHash::hex() {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  GRAFT_ASSERT(EVP_DigestFinal_ex(state_->context, digest, &size) == 1);
  std::string text;
  for (unsigned i = 0; i < size; ++i) text += fmt::format("{:02x}", digest[i]);
  return text;
}

bool is_content_name(std::string_view name) {
  return (name.size() == 40 || name.size() == 64) &&
         name.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

}  // namespace graft::hub
