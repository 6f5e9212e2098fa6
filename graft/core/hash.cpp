#include "graft/core/hash.h"

#include <openssl/evp.h>

#include "graft/core/error.h"

namespace graft {

struct Sha256::State {
  EVP_MD_CTX* context = EVP_MD_CTX_new();
  State() { GRAFT_ASSERT(context && EVP_DigestInit_ex(context, EVP_sha256(), nullptr) == 1); }
  ~State() { EVP_MD_CTX_free(context); }
};

Sha256::Sha256() : state_(std::make_unique<State>()) {}
Sha256::~Sha256() = default;
Sha256::Sha256(Sha256&&) noexcept = default;
Sha256& Sha256::operator=(Sha256&&) noexcept = default;

Sha256& Sha256::update(const void* bytes, size_t size) {
  GRAFT_ASSERT(EVP_DigestUpdate(state_->context, bytes, size) == 1);
  return *this;
}

std::string Sha256::hex() {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  GRAFT_ASSERT(EVP_DigestFinal_ex(state_->context, digest, &size) == 1);
  std::string text;
  for (unsigned i = 0; i < size; ++i) text += fmt::format("{:02x}", digest[i]);
  return text;
}

std::string sha256(std::string_view bytes) { return Sha256().update(bytes).hex(); }

double unit_hash(std::string_view bytes) {
  return static_cast<double>(std::stoull(sha256(bytes).substr(0, 15), nullptr, 16)) * 0x1.0p-60;
}

}  // namespace graft
