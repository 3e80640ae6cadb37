// Where a queued job stands. A value.
#pragma once

#include <cstdint>
#include <string>

#include "absl/time/time.h"

namespace kino::frontend {

struct Standing {
  // Jobs that the workers which serve its model would start before it.
  int64_t position = 0;
  // What it waits for (queue_view.h); empty: nothing, it is about to start.
  std::string reason;
  // When what it waits for is over; InfiniteFuture: not known.
  absl::Time until = absl::InfiniteFuture();
  bool operator==(const Standing&) const = default;
};

}  // namespace kino::frontend
