// absl::Status -> what goes over the wire: google.rpc.Status with its details. Every error carries
// an ErrorInfo (reason, domain "kino.v1"); UNAVAILABLE and RESOURCE_EXHAUSTED a RetryInfo; a full
// queue a QuotaFailure. Free functions.
#pragma once

#include <grpcpp/grpcpp.h>

#include <string>

#include "absl/status/status.h"
#include "google/rpc/status.pb.h"

namespace kino::frontend {

// `status` with an ErrorInfo of this reason, unless it has one.
absl::Status WithErrorInfo(absl::Status status, const std::string& reason);

google::rpc::Status ToWireStatus(const absl::Status& status);
grpc::Status ToGrpc(const absl::Status& status);

}  // namespace kino::frontend
