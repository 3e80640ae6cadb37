// What a PEM certificate says of itself. Free functions; no gRPC.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/config/config.h"

namespace kino::frontend {

struct Certificate {
  absl::Time not_before;
  absl::Time not_after;
};

// The server's own, with its key. NOT_FOUND, PERMISSION_DENIED: a file cannot be read.
// INVALID_ARGUMENT: it holds no certificate, no key, or a key that belongs to another certificate.
// Reads both files.
absl::StatusOr<Certificate> ReadCertificate(const config::TlsConfig& tls);

}  // namespace kino::frontend
