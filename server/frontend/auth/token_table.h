// Bearer tokens: who a caller is. Only SHA-256 digests are kept, and compared in constant time.
// Immutable after construction; thread-safe.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "server/config/config.h"

namespace kino::frontend {

class TokenTable {
 public:
  // Reads the token file, if one is named. FAILED_PRECONDITION: it is empty, or others may read it.
  static absl::StatusOr<TokenTable> Load(const config::AuthConfig& auth);

  // The caller's tenant from the value of the "authorization" metadata (empty: none was sent).
  // Without configured tokens every caller is "default". UNAUTHENTICATED: no token, or none that is
  // known.
  absl::StatusOr<std::string> Authenticate(std::string_view authorization) const;

  // Whether callers have to bring a token.
  bool is_required() const { return is_required_; }

 private:
  TokenTable() = default;
  bool is_required_ = false;
  std::vector<config::AuthToken> tokens_;
};

// Whether two secrets are equal, in time that depends on their length only.
bool SecretsEqual(std::string_view a, std::string_view b);

}  // namespace kino::frontend
