// What the clients' listener speaks: TLS, or plain text.
#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/config/config.h"

namespace kino::frontend {

// Files that change are taken over within a second; connections that are there keep what they have.
// A certificate and a key that do not belong together let nobody in until they do. Errors are those
// of ReadCertificate; FAILED_PRECONDITION: the certificate is not valid now.
absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> ListenerCredentials(
    const config::TlsConfig& tls);

// Of the certificate that the client has shown and TLS has checked: see CallOrigin.
std::vector<std::string> CertificateNames(const grpc::AuthContext& context);

}  // namespace kino::frontend
