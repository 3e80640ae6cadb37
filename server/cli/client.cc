#include "server/cli/client.h"

#include <chrono>
#include <iostream>

#include "absl/strings/str_cat.h"
#include "google/protobuf/struct.pb.h"
#include "google/rpc/error_details.pb.h"
#include "server/command_line/address.h"
#include "server/command_line/command_line.h"
#include "server/convert/json.h"
#include "server/convert/status.h"

namespace kino::cli {
namespace {

// LoadModel reads weights before it answers; the rest takes no time.
constexpr auto kUnaryDeadline = std::chrono::minutes(15);
constexpr int kMaxMessageBytes = 16 << 20;

std::string Message(const absl::Status& status, const ErrorStyle& style) {
  const std::string message(status.message());
  if (!absl::IsUnavailable(status) || style.server.empty()) return message;
  return absl::StrCat("the server at ", style.server, " cannot be reached: ", message);
}

void PrintErrorWords(const absl::Status& status, const ErrorStyle& style) {
  google::rpc::BadRequest bad_request;
  if (absl::IsUnavailable(status)) {
    std::cerr << "kino: " << Message(status, style) << "\n";
  } else if (convert::GetDetail(status, &bad_request) && bad_request.field_violations_size() > 0) {
    std::cerr << "kino: the request was refused:\n";
    for (const auto& violation : bad_request.field_violations()) {
      std::cerr << "  " << violation.field() << ": " << violation.description() << "\n";
    }
  } else {
    std::cerr << "kino: " << absl::StatusCodeToString(status.code()) << ": "
              << Message(status, style) << "\n";
  }
  google::rpc::QuotaFailure quota;
  if (convert::GetDetail(status, &quota)) {
    for (const auto& violation : quota.violations()) {
      std::cerr << "  quota " << violation.subject() << ": " << violation.description() << "\n";
    }
  }
  google::rpc::ErrorInfo info;
  if (convert::GetDetail(status, &info) && !info.reason().empty()) {
    std::cerr << "  reason: " << info.reason() << "\n";
  }
  google::rpc::RetryInfo retry;
  if (convert::GetDetail(status, &retry)) {
    std::cerr << "  try again in " << retry.retry_delay().seconds() << " s\n";
  }
}

void PrintErrorJson(const absl::Status& status, const ErrorStyle& style) {
  google::protobuf::Struct root;
  auto& error = *(*root.mutable_fields())["error"].mutable_struct_value()->mutable_fields();
  const std::string code = absl::StatusCodeToString(status.code());
  error["code"].set_string_value(code);
  error["message"].set_string_value(Message(status, style));
  google::rpc::ErrorInfo info;
  convert::GetDetail(status, &info);
  error["reason"].set_string_value(info.reason().empty() ? code : info.reason());
  if (!style.job_id.empty()) error["job"].set_string_value(style.job_id);
  if (!style.asset_id.empty()) error["asset"].set_string_value(style.asset_id);
  google::rpc::BadRequest bad_request;
  if (convert::GetDetail(status, &bad_request)) {
    for (const auto& violation : bad_request.field_violations()) {
      auto& fields = *error["violations"]
                          .mutable_list_value()
                          ->add_values()
                          ->mutable_struct_value()
                          ->mutable_fields();
      fields["field"].set_string_value(violation.field());
      fields["description"].set_string_value(violation.description());
    }
  }
  google::rpc::RetryInfo retry;
  if (convert::GetDetail(status, &retry)) {
    error["retry_seconds"].set_number_value(static_cast<double>(retry.retry_delay().seconds()));
  }
  std::cerr << convert::ToJson(root, convert::JsonLayout::kOneLine) << "\n";
}

std::shared_ptr<grpc::ChannelCredentials> CredentialsOf(const TlsOptions& tls) {
  if (!tls.is_on) return grpc::InsecureChannelCredentials();
  return grpc::SslCredentials(
      {.pem_root_certs = tls.ca, .pem_private_key = tls.key, .pem_cert_chain = tls.certificate});
}

}  // namespace

Client::Client(const ServerOptions& options) : options_(options) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMaxMessageBytes);
  // A server that comes back is found at once, not after gRPC's default of up to two minutes.
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000);
  // A proxy is for what lies beyond this machine.
  if (command_line::IsLocalTarget(options_.address)) {
    arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  }
  if (!options_.tls.server_name.empty())
    arguments.SetSslTargetNameOverride(options_.tls.server_name);
  channel_ = grpc::CreateCustomChannel(options_.address, CredentialsOf(options_.tls), arguments);
  health_ = grpc::health::v1::Health::NewStub(channel_);
  videos_ = v1::VideoService::NewStub(channel_);
  models_ = v1::ModelService::NewStub(channel_);
}

std::unique_ptr<grpc::ClientContext> Client::StreamContext() const {
  auto context = std::make_unique<grpc::ClientContext>();
  if (!options_.token.empty()) {
    context->AddMetadata("authorization", absl::StrCat("Bearer ", options_.token));
  }
  if (!options_.traceparent.empty()) context->AddMetadata("traceparent", options_.traceparent);
  return context;
}

std::unique_ptr<grpc::ClientContext> Client::UnaryContext() const {
  auto context = StreamContext();
  context->set_deadline(std::chrono::system_clock::now() + kUnaryDeadline);
  return context;
}

absl::Status ToStatus(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  google::rpc::Status details;
  if (details.ParseFromString(status.error_details()) &&
      details.code() == static_cast<int>(status.error_code())) {
    return convert::FromRpc(details);
  }
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
}

ExitCode ReportError(const absl::Status& status, const ErrorStyle& style) {
  style.is_json ? PrintErrorJson(status, style) : PrintErrorWords(status, style);
  return absl::IsUnavailable(status) ? kUnreachable : kRefused;
}

ExitCode ReportLocalError(const absl::Status& status, const std::string& reason,
                          const ErrorStyle& style) {
  if (style.is_json) {
    // No errno's code may look like the server's.
    absl::Status told = absl::DataLossError(std::string(status.message()));
    google::rpc::ErrorInfo info;
    info.set_reason(reason);
    convert::AddDetail(&told, info);
    return ReportError(told, style);
  }
  std::cerr << "kino: " << std::string(status.message()) << "\n";
  if (!style.job_id.empty()) std::cerr << "  the job is " << style.job_id << "\n";
  if (!style.asset_id.empty()) std::cerr << "  the asset is " << style.asset_id << "\n";
  return kRefused;
}

ExitCode CheckOutputWritten(ExitCode code, const ErrorStyle& style) {
  const absl::Status error = command_line::TakeOutputError();
  if (error.ok()) return code;
  const ExitCode refused = ReportLocalError(error, "OUTPUT", style);
  return code == kOk ? refused : code;
}

}  // namespace kino::cli
