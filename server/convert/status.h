// absl::Status <-> google.rpc.Status, details included: a detail is a payload of the absl::Status
// under its type URL. Free functions over values; thread-safe.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "engine/describe/request.h"
#include "google/protobuf/message.h"
#include "google/rpc/status.pb.h"

namespace kino::convert {

google::rpc::Status ToRpc(const absl::Status& status);
// A code that is no canonical one becomes UNKNOWN.
absl::Status FromRpc(const google::rpc::Status& status);

// Adds `detail` (google.rpc.ErrorInfo, BadRequest, RetryInfo, ...) to an error; one of each type.
void AddDetail(absl::Status* status, const google::protobuf::Message& detail);
// Reads the detail of `detail`'s type. False when there is none, or it does not parse.
bool GetDetail(const absl::Status& status, google::protobuf::Message* detail);

// INVALID_ARGUMENT whose message names every violation and that carries a BadRequest with them. OK
// when there are none.
absl::Status InvalidRequest(const std::vector<engine::FieldViolation>& violations);

}  // namespace kino::convert
