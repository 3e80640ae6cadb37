#include "server/frontend/auth/credentials.h"

#include <openssl/crypto.h>

#include <algorithm>
#include <utility>

#include "server/digest/sha256.h"

namespace kino::frontend {

bool SecretsEqual(std::string_view a, std::string_view b) {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

absl::StatusOr<Credentials> Credentials::Load(const config::AuthConfig& auth) {
  Credentials credentials;
  credentials.is_required_ = auth.required();
  credentials.tokens_ = auth.tokens;
  credentials.certificates_ = auth.certificates;
  if (auth.tokens_file.empty()) return credentials;
  absl::StatusOr<std::vector<config::AuthToken>> more = config::LoadTokens(auth.tokens_file);
  if (!more.ok()) return more.status();
  credentials.tokens_.insert(credentials.tokens_.end(), more->begin(), more->end());
  const absl::Status checked = config::CheckTokens(credentials.tokens_);
  if (!checked.ok()) return checked;
  return credentials;
}

absl::StatusOr<Identity> Credentials::ByToken(std::string_view authorization) const {
  constexpr std::string_view kScheme = "Bearer ";
  if (!authorization.starts_with(kScheme)) {
    return absl::UnauthenticatedError(
        "this server wants a bearer token: metadata 'authorization: Bearer TOKEN'");
  }
  const std::string given = digest::Sha256Of(authorization.substr(kScheme.size()));
  const config::AuthToken* match = nullptr;
  for (const config::AuthToken& token : tokens_) {
    if (SecretsEqual(given, token.sha256)) match = &token;
  }
  if (match == nullptr) return absl::UnauthenticatedError("the bearer token is not known");
  return Identity{.tenant = match->tenant, .role = match->role};
}

absl::StatusOr<Identity> Credentials::Identify(const CallOrigin& origin) const {
  if (!is_required_) return Identity{.tenant = "default", .role = config::Role::kOperate};
  if (origin.authorization.empty() && !origin.certificate_names.empty()) {
    for (const config::AuthCertificate& known : certificates_) {
      if (std::find(origin.certificate_names.begin(), origin.certificate_names.end(), known.name) !=
          origin.certificate_names.end())
        return Identity{.tenant = known.tenant, .role = known.role};
    }
    return absl::UnauthenticatedError(
        "the client's certificate has no name that this server knows, and no bearer token was "
        "sent");
  }
  return ByToken(origin.authorization);
}

}  // namespace kino::frontend
