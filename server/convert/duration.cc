#include "server/convert/duration.h"

#include <algorithm>

namespace kino::convert {

absl::Duration ToDuration(const google::protobuf::Duration& duration) {
  return absl::Seconds(duration.seconds()) + absl::Nanoseconds(duration.nanos());
}

void SetDuration(absl::Duration duration, google::protobuf::Duration* out) {
  const absl::Duration bounded = std::min(duration, absl::Hours(24 * 3650));
  out->set_seconds(absl::ToInt64Seconds(bounded));
  out->set_nanos(static_cast<int32_t>(
      absl::ToInt64Nanoseconds(bounded - absl::Seconds(absl::ToInt64Seconds(bounded)))));
}

}  // namespace kino::convert
