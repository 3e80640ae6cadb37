// SHA-256 over bytes that arrive in pieces, by OpenSSL. One thread at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace kino::digest {

class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;

  void Update(const void* data, size_t size);
  // Of all bytes so far, in lower-case hexadecimal. More bytes may follow.
  std::string Hex() const;

 private:
  struct Context;
  std::unique_ptr<Context> context_;
};

// Of these bytes.
std::string Sha256Of(std::string_view bytes);

struct FileDigest {
  int64_t size_bytes = 0;
  std::string sha256;
};
// NOT_FOUND or the like when the file cannot be read.
absl::StatusOr<FileDigest> DigestFile(const std::string& path);

}  // namespace kino::digest
