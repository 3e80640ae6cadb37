#include "server/frontend/auth/token_table.h"

#include <openssl/crypto.h>
#include <sys/stat.h>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "server/config/data_dir.h"
#include "server/digest/sha256.h"

namespace kino::frontend {
bool SecretsEqual(std::string_view a, std::string_view b) {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

absl::StatusOr<TokenTable> TokenTable::Load(const config::AuthConfig& auth) {
  TokenTable table;
  table.is_required_ = auth.required();
  table.tokens_ = auth.tokens;
  if (auth.token_file.empty()) return table;
  absl::StatusOr<std::string> text = config::ReadSmallFile(auth.token_file, 1 << 16);
  if (!text.ok()) return text.status();
  struct stat info {};
  if (stat(auth.token_file.c_str(), &info) != 0 || (info.st_mode & 0077) != 0) {
    return absl::FailedPreconditionError(absl::StrCat(
        "token file '", auth.token_file, "' must be closed to other users (mode 600)"));
  }
  size_t count = 0;
  for (absl::string_view line : absl::StrSplit(*text, '\n')) {
    line = absl::StripAsciiWhitespace(line);
    if (line.empty()) continue;
    table.tokens_.push_back(
        {.tenant = "default", .sha256 = digest::Sha256Of({line.data(), line.size()})});
    ++count;
  }
  if (count == 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("token file '", auth.token_file, "' holds no token"));
  }
  return table;
}

absl::StatusOr<std::string> TokenTable::Authenticate(std::string_view authorization) const {
  if (!is_required_) return "default";
  constexpr std::string_view kScheme = "Bearer ";
  if (authorization.substr(0, kScheme.size()) != kScheme) {
    return absl::UnauthenticatedError(
        "this server wants a bearer token: metadata 'authorization: Bearer TOKEN'");
  }
  const std::string given = digest::Sha256Of(authorization.substr(kScheme.size()));
  const config::AuthToken* match = nullptr;
  for (const config::AuthToken& token : tokens_) {
    if (SecretsEqual(given, token.sha256)) match = &token;
  }
  if (match == nullptr) return absl::UnauthenticatedError("the bearer token is not known");
  return match->tenant;
}

}  // namespace kino::frontend
