#include "server/frontend/rpc/errors.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "google/rpc/error_details.pb.h"
#include "scheduler/status.h"
#include "server/command_line/utf8.h"
#include "server/convert/status.h"

namespace kino::frontend {
namespace {

constexpr char kDomain[] = "kino.v1";
constexpr char kServerBusy[] = "SERVER_BUSY";
// Headers hold the message once as it is, where what is not ASCII takes three bytes for one, and
// once with the details in base64.
constexpr size_t kMaxMessageBytes = 1024;
constexpr size_t kMaxViolationsBytes = 1024;

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

// What is met where a status has this reason; "": no quota.
std::string QuotaSubject(const std::string& reason) {
  if (reason == scheduler::kReasonQueueFull || reason == scheduler::kReasonTenantQueueFull)
    return "queue";
  if (reason == scheduler::kReasonRequestTooLarge) return "request";
  if (reason == scheduler::kReasonDiskFull) return "disk";
  if (reason == "UPLOAD_TOO_LARGE") return "upload";
  if (reason == kServerBusy || reason == "REQUEST_RATE") return "calls";
  return "";
}

google::rpc::Status ToWire(const absl::Status& status, size_t max_message_bytes) {
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
  google::rpc::ErrorInfo info;
  convert::GetDetail(out, &info);
  const std::string subject = QuotaSubject(info.reason());
  google::rpc::QuotaFailure quota;
  if (!subject.empty() && !convert::GetDetail(out, &quota)) {
    auto* violation = quota.add_violations();
    violation->set_subject(subject);
    violation->set_description(CutText(status.message(), max_message_bytes));
    convert::AddDetail(&out, quota);
  }
  return convert::ToRpc(out);
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

absl::Status ServerBusy(const std::string& what) {
  absl::Status status = WithErrorInfo(
      absl::ResourceExhaustedError(absl::StrCat("too many ", what, "; try again")), kServerBusy);
  google::rpc::RetryInfo retry;
  retry.mutable_retry_delay()->set_seconds(1);
  convert::AddDetail(&status, retry);
  return status;
}

google::rpc::Status ToWireStatus(const absl::Status& status) { return ToWire(status, SIZE_MAX); }

google::rpc::Status ToShortWireStatus(const absl::Status& status) {
  absl::Status out = status;
  google::rpc::BadRequest all;
  if (convert::GetDetail(status, &all)) {
    google::rpc::BadRequest told;
    size_t bytes = 0;
    for (const auto& violation : all.field_violations()) {
      auto& added = *told.add_field_violations();
      added.set_field(CutText(violation.field(), 128));
      added.set_description(CutText(violation.description(), 256));
      bytes += added.ByteSizeLong();
      if (bytes <= kMaxViolationsBytes) continue;
      told.mutable_field_violations()->RemoveLast();
      break;
    }
    convert::AddDetail(&out, told);
  }
  google::rpc::Status wire = ToWire(out, kMaxMessageBytes);
  wire.set_message(CutText(wire.message(), kMaxMessageBytes));
  return wire;
}

std::string CutText(absl::string_view text, size_t most) {
  if (text.size() <= most) return std::string(text);
  constexpr absl::string_view kEllipsis = "...";
  if (most < kEllipsis.size()) return "";
  return absl::StrCat(
      command_line::TruncateUtf8({text.data(), text.size()}, most - kEllipsis.size()), kEllipsis);
}

}  // namespace kino::frontend
