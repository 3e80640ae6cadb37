#include "server/frontend/tls/listener_credentials.h"

#include <grpc/grpc_security_constants.h>
#include <grpcpp/security/tls_certificate_provider.h>
#include <grpcpp/security/tls_certificate_verifier.h>
#include <grpcpp/security/tls_credentials_options.h>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/frontend/tls/certificate.h"

namespace kino::frontend {
namespace {

constexpr unsigned int kLookEverySeconds = 1;

}  // namespace

absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> ListenerCredentials(
    const config::TlsConfig& tls) {
  if (!tls.is_on()) return grpc::InsecureServerCredentials();
  const absl::StatusOr<Certificate> certificate = ReadCertificate(tls);
  if (!certificate.ok()) return certificate.status();
  const absl::Time now = absl::Now();
  if (now < certificate->not_before || now > certificate->not_after) {
    return absl::FailedPreconditionError(
        absl::StrCat("the certificate '", tls.certificate, "' is valid from ",
                     absl::FormatTime(certificate->not_before, absl::UTCTimeZone()), " to ",
                     absl::FormatTime(certificate->not_after, absl::UTCTimeZone())));
  }
  grpc::experimental::TlsServerCredentialsOptions options(
      std::make_shared<grpc::experimental::FileWatcherCertificateProvider>(
          tls.key, tls.certificate, tls.client_ca, kLookEverySeconds));
  options.watch_identity_key_cert_pairs();
  if (!tls.client_ca.empty()) {
    options.watch_root_certs();
    options.set_cert_request_type(tls.require_client_certificate
                                      ? GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY
                                      : GRPC_SSL_REQUEST_CLIENT_CERTIFICATE_AND_VERIFY);
    // TLS checks who signed; a client's certificate names no host.
    options.set_certificate_verifier(
        std::make_shared<grpc::experimental::NoOpCertificateVerifier>());
  }
  return grpc::experimental::TlsServerCredentials(options);
}

std::vector<std::string> CertificateNames(const grpc::AuthContext& context) {
  std::vector<std::string> names;
  for (const char* property : {GRPC_X509_SAN_PROPERTY_NAME, GRPC_X509_CN_PROPERTY_NAME}) {
    for (const grpc::string_ref& name : context.FindPropertyValues(property))
      names.emplace_back(name.data(), name.size());
    if (!names.empty()) break;
  }
  return names;
}

}  // namespace kino::frontend
