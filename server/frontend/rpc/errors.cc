#include "server/frontend/rpc/errors.h"

#include <vector>

#include "absl/strings/match.h"
#include "google/rpc/error_details.pb.h"
#include "scheduler/status.h"
#include "server/convert/status.h"

namespace kino::frontend {
namespace {

constexpr char kDomain[] = "kino.v1";

// Only google.rpc details leave the server.
absl::Status WithoutPrivatePayloads(const absl::Status& status) {
  absl::Status out(status.code(), status.message());
  status.ForEachPayload([&](absl::string_view type_url, const absl::Cord& payload) {
    if (absl::StartsWith(type_url, "type.googleapis.com/google.rpc.")) {
      out.SetPayload(type_url, payload);
    }
  });
  return out;
}

}  // namespace

absl::Status WithErrorInfo(absl::Status status, const std::string& reason) {
  google::rpc::ErrorInfo info;
  if (status.ok() || convert::GetDetail(status, &info)) return status;
  info.set_reason(reason);
  info.set_domain(kDomain);
  convert::AddDetail(&status, info);
  return status;
}

google::rpc::Status ToWireStatus(const absl::Status& status) {
  if (status.ok()) return {};
  const std::string reason = scheduler::ReasonOf(status);
  absl::Status out =
      WithErrorInfo(WithoutPrivatePayloads(status),
                    reason.empty() ? absl::StatusCodeToString(status.code()) : reason);
  if (absl::IsUnavailable(out) || absl::IsResourceExhausted(out)) {
    google::rpc::RetryInfo retry;
    if (!convert::GetDetail(out, &retry)) {
      retry.mutable_retry_delay()->set_seconds(absl::IsUnavailable(out) ? 1 : 5);
      convert::AddDetail(&out, retry);
    }
  }
  if (reason == scheduler::kReasonQueueFull) {
    google::rpc::QuotaFailure quota;
    auto* violation = quota.add_violations();
    violation->set_subject("queue");
    violation->set_description(std::string(status.message()));
    convert::AddDetail(&out, quota);
  }
  return convert::ToRpc(out);
}

grpc::Status ToGrpc(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  const google::rpc::Status wire = ToWireStatus(status);
  return {static_cast<grpc::StatusCode>(wire.code()), wire.message(), wire.SerializeAsString()};
}

}  // namespace kino::frontend
