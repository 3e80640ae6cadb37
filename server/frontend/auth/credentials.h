// Who callers are: tokens, of which only SHA-256 digests are kept, and names of clients'
// certificates. Immutable; thread-safe.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "server/config/config.h"

namespace kino::frontend {

// What a call says of its origin.
struct CallOrigin {
  std::string authorization{};  // the value of that header; empty: none was sent
  std::string peer{};           // the connection's other end; only ever compared
  // Of the certificate that TLS has checked: its subject alternative names or, without any, its
  // common name; empty: none was shown.
  std::vector<std::string> certificate_names{};
};

struct Identity {
  std::string tenant;
  config::Role role = config::Role::kUse;
};

class Credentials {
 public:
  // Reads the tokens' file, if one is named. INVALID_ARGUMENT: it cannot be read, is malformed, or
  // there are too many tokens (config::CheckTokens).
  static absl::StatusOr<Credentials> Load(const config::AuthConfig& auth);

  // By the token, if one was sent, else by the certificate. Tokens are compared in constant time.
  // Where nothing is configured everybody is "default" and may operate. UNAUTHENTICATED: neither a
  // token nor a certificate, or none that is known.
  absl::StatusOr<Identity> Identify(const CallOrigin& origin) const;

  // Whether callers have to say who they are.
  bool is_required() const { return is_required_; }

 private:
  Credentials() = default;
  absl::StatusOr<Identity> ByToken(std::string_view authorization) const;
  bool is_required_ = false;
  std::vector<config::AuthToken> tokens_;
  std::vector<config::AuthCertificate> certificates_;
};

// Whether two secrets are equal, in time that depends on their length only.
bool SecretsEqual(std::string_view a, std::string_view b);

}  // namespace kino::frontend
