// google.protobuf.Duration <-> absl::Duration. Free functions; thread-safe.
#pragma once

#include "absl/time/time.h"
#include "google/protobuf/duration.pb.h"

namespace kino::convert {

absl::Duration ToDuration(const google::protobuf::Duration& duration);

// Saturates; infinite durations become ten years.
void SetDuration(absl::Duration duration, google::protobuf::Duration* out);

}  // namespace kino::convert
