// absl::Status -> google.rpc.Status with its details. Every error carries an ErrorInfo (reason,
// domain "kino.v1"); UNAVAILABLE and RESOURCE_EXHAUSTED a RetryInfo; a quota that is met a
// QuotaFailure. Free functions.
#pragma once

#include <cstddef>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "google/rpc/status.pb.h"

namespace kino::frontend {

// `status` with an ErrorInfo of this reason, unless it has one.
absl::Status WithErrorInfo(absl::Status status, const std::string& reason);

// RESOURCE_EXHAUSTED (reason SERVER_BUSY), to be tried again in a second: the call was not begun
// because too many `what` wait or are under way.
absl::Status ServerBusy(const std::string& what);

google::rpc::Status ToWireStatus(const absl::Status& status);

// The same for an error that travels in headers, which clients take up to 8 KiB of: a long message
// is cut, and of many field violations the first are told.
google::rpc::Status ToShortWireStatus(const absl::Status& status);

// `text`, or its beginning of at most `most` bytes, cut between characters, and "...".
std::string CutText(absl::string_view text, size_t most);

}  // namespace kino::frontend
