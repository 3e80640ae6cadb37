// The connection to a Kino server: stubs, the token, deadlines, and errors as exit codes.
// Thread-safe.
#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "kino/v1/health.grpc.pb.h"
#include "kino/v1/models.grpc.pb.h"
#include "kino/v1/video.grpc.pb.h"

namespace kino::cli {

enum ExitCode {
  kOk = 0,
  kJobFailed = 1,
  kUsage = 2,
  kUnreachable = 3,
  kRefused = 4,  // the server refused the call, or a local file cannot be read or written
  kCancelled = 5,
  kInterrupted = 130,
};

// PEM, not paths. Empty ones are not used.
struct TlsOptions {
  bool is_on = false;
  std::string ca;  // who signed the server's certificate; empty: whom this system trusts
  std::string certificate, key;  // this client's
  std::string server_name;       // that the server's certificate has; empty: the address's host
};

struct ServerOptions {
  std::string address;  // host:port or unix:/path
  std::string token;    // empty: none
  TlsOptions tls;
  std::string traceparent;  // of the calls; empty: none
};

class Client {
 public:
  explicit Client(const ServerOptions& options);

  v1::VideoService::Stub& videos() { return *videos_; }
  v1::ModelService::Stub& models() { return *models_; }
  grpc::health::v1::Health::Stub& health() { return *health_; }
  const std::string& address() const { return options_.address; }

  // A context with the token. A call without a stream gets a deadline, so that a dead server is
  // told of.
  std::unique_ptr<grpc::ClientContext> UnaryContext() const;
  std::unique_ptr<grpc::ClientContext> StreamContext() const;

 private:
  const ServerOptions options_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::VideoService::Stub> videos_;
  std::unique_ptr<v1::ModelService::Stub> models_;
  std::unique_ptr<grpc::health::v1::Health::Stub> health_;
};

// With google.rpc's details as payloads.
absl::Status ToStatus(const grpc::Status& status);

// How errors are told on standard error.
struct ErrorStyle {
  std::string server;    // its address; empty: UNAVAILABLE is not about reaching it
  bool is_json = false;  // else words
  // The job and the asset that are there in spite of it, or none.
  std::string job_id;
  std::string asset_id;
};

// Prints the error with its details, one a line, and says which exit code it is. With is_json it is
// one line: {"error": {"code", "reason", "message", ...}}.
ExitCode ReportError(const absl::Status& status, const ErrorStyle& style);

// The same of an error of this machine's own: what is there in spite of it goes by its id.
ExitCode ReportLocalError(const absl::Status& status, const std::string& reason,
                          const ErrorStyle& style);

// Tells of a standard output that could not be written: kRefused then, else `code`.
ExitCode CheckOutputWritten(ExitCode code, const ErrorStyle& style);

}  // namespace kino::cli
