#include "server/convert/status.h"

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "google/rpc/error_details.pb.h"
#include "server/command_line/utf8.h"

namespace kino::convert {
namespace {

constexpr char kTypeUrlPrefix[] = "type.googleapis.com/";

std::string TypeUrl(const google::protobuf::Message& message) {
  return absl::StrCat(kTypeUrlPrefix, message.GetDescriptor()->full_name());
}

}  // namespace

google::rpc::Status ToRpc(const absl::Status& status) {
  google::rpc::Status out;
  out.set_code(static_cast<int>(status.code()));
  // A file's name, or a library's words, may be in it.
  const absl::string_view message = status.message();
  out.set_message(command_line::ToUtf8({message.data(), message.size()}));
  status.ForEachPayload([&](absl::string_view type_url, const absl::Cord& payload) {
    google::protobuf::Any* detail = out.add_details();
    detail->set_type_url(std::string(type_url));
    detail->set_value(std::string(payload));
  });
  return out;
}

absl::Status FromRpc(const google::rpc::Status& status) {
  const bool canonical = status.code() >= 0 && status.code() <= 16;
  absl::Status out(
      canonical ? static_cast<absl::StatusCode>(status.code()) : absl::StatusCode::kUnknown,
      status.message());
  if (out.ok()) return out;
  for (const google::protobuf::Any& detail : status.details()) {
    out.SetPayload(detail.type_url(), absl::Cord(detail.value()));
  }
  return out;
}

void AddDetail(absl::Status* status, const google::protobuf::Message& detail) {
  status->SetPayload(TypeUrl(detail), absl::Cord(detail.SerializeAsString()));
}

bool GetDetail(const absl::Status& status, google::protobuf::Message* detail) {
  auto payload = status.GetPayload(TypeUrl(*detail));
  return payload.has_value() && detail->ParseFromString(std::string(*payload));
}

absl::Status InvalidRequest(const std::vector<engine::FieldViolation>& violations) {
  if (violations.empty()) return absl::OkStatus();
  google::rpc::BadRequest details;
  std::string message;
  for (const engine::FieldViolation& violation : violations) {
    absl::StrAppend(&message, message.empty() ? "" : "; ", violation.field, ": ",
                    violation.description);
    auto* out = details.add_field_violations();
    out->set_field(violation.field);
    out->set_description(violation.description);
  }
  absl::Status status = absl::InvalidArgumentError(message);
  AddDetail(&status, details);
  return status;
}

}  // namespace kino::convert
