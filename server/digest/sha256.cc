#include "server/digest/sha256.h"

#include <openssl/evp.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace kino::digest {

struct Sha256::Context {
  EVP_MD_CTX* md = EVP_MD_CTX_new();
  ~Context() { EVP_MD_CTX_free(md); }
};

Sha256::Sha256() : context_(std::make_unique<Context>()) {
  // Fails only without memory or without SHA-256 in OpenSSL; a wrong digest must never leave this
  // class.
  if (context_->md == nullptr || EVP_DigestInit_ex(context_->md, EVP_sha256(), nullptr) != 1) {
    std::abort();
  }
}

Sha256::~Sha256() = default;

void Sha256::Update(const void* data, size_t size) {
  if (EVP_DigestUpdate(context_->md, data, size) != 1) std::abort();
}

std::string Sha256::Hex() const {
  Context copy;
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int length = 0;
  if (copy.md == nullptr || EVP_MD_CTX_copy_ex(copy.md, context_->md) != 1 ||
      EVP_DigestFinal_ex(copy.md, digest, &length) != 1) {
    std::abort();
  }
  return absl::BytesToHexString(absl::string_view(reinterpret_cast<const char*>(digest), length));
}

std::string Sha256Of(std::string_view bytes) {
  Sha256 sha;
  sha.Update(bytes.data(), bytes.size());
  return sha.Hex();
}

absl::StatusOr<FileDigest> DigestFile(const std::string& path) {
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "rbe"),
                                                       &std::fclose);
  if (file == nullptr) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot read '", path, "'"));
  }
  Sha256 digest;
  FileDigest result;
  std::vector<char> buffer(1 << 18);
  size_t got = 0;
  while ((got = std::fread(buffer.data(), 1, buffer.size(), file.get())) > 0) {
    digest.Update(buffer.data(), got);
    result.size_bytes += static_cast<int64_t>(got);
  }
  if (std::ferror(file.get()) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot read '", path, "'"));
  }
  result.sha256 = digest.Hex();
  return result;
}

}  // namespace kino::digest
