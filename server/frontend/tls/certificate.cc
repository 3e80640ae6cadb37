#include "server/frontend/tls/certificate.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <ctime>
#include <memory>

#include "absl/strings/str_cat.h"
#include "server/config/data_dir.h"

namespace kino::frontend {
namespace {

constexpr size_t kMostBytes = 1 << 20;

template <auto Free>
struct Freed {
  template <typename T>
  void operator()(T* object) const {
    Free(object);
  }
};
using Bio = std::unique_ptr<BIO, Freed<BIO_free_all>>;
using Parsed = std::unique_ptr<X509, Freed<X509_free>>;
using Key = std::unique_ptr<EVP_PKEY, Freed<EVP_PKEY_free>>;

// OpenSSL asks on the terminal otherwise, where a key has a passphrase.
int NoPassphrase(char*, int, int, void*) { return -1; }

absl::Time TimeOf(const ASN1_TIME* time) {
  std::tm parts{};
  if (ASN1_TIME_to_tm(time, &parts) != 1) return absl::InfinitePast();
  return absl::FromTM(parts, absl::UTCTimeZone());
}

absl::StatusOr<Bio> Open(const std::string& path, std::string& text) {
  absl::StatusOr<std::string> read = config::ReadSmallFile(path, kMostBytes);
  if (!read.ok()) return read.status();
  text = *std::move(read);
  return Bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
}

}  // namespace

absl::StatusOr<Certificate> ReadCertificate(const config::TlsConfig& tls) {
  std::string certificate_text, key_text;
  const absl::StatusOr<Bio> certificate_file = Open(tls.certificate, certificate_text);
  if (!certificate_file.ok()) return certificate_file.status();
  const absl::StatusOr<Bio> key_file = Open(tls.key, key_text);
  if (!key_file.ok()) return key_file.status();
  ERR_clear_error();
  const Parsed certificate(
      PEM_read_bio_X509(certificate_file->get(), nullptr, NoPassphrase, nullptr));
  const Key key(PEM_read_bio_PrivateKey(key_file->get(), nullptr, NoPassphrase, nullptr));
  ERR_clear_error();
  if (certificate == nullptr)
    return absl::InvalidArgumentError(
        absl::StrCat("'", tls.certificate, "' holds no certificate in PEM form"));
  if (key == nullptr)
    return absl::InvalidArgumentError(
        absl::StrCat("'", tls.key, "' holds no private key in PEM form without a passphrase"));
  const bool is_pair = X509_check_private_key(certificate.get(), key.get()) == 1;
  ERR_clear_error();
  if (!is_pair)
    return absl::InvalidArgumentError(absl::StrCat(
        "the key '", tls.key, "' belongs to another certificate than '", tls.certificate, "'"));
  return Certificate{.not_before = TimeOf(X509_get0_notBefore(certificate.get())),
                     .not_after = TimeOf(X509_get0_notAfter(certificate.get()))};
}

}  // namespace kino::frontend
