// Where a queued job stands. A value.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>

#include "absl/time/time.h"

namespace kino::frontend {

struct Standing {
  // Jobs that the workers which serve its model would start before it.
  int64_t position = 0;
  // What it waits for (queue_view.h); empty: nothing, it is about to start.
  std::string reason{};
  // When what it waits for is over; InfiniteFuture: not known.
  absl::Time until = absl::InfiniteFuture();
  // When it is expected to start and to have ended, as it looked at `as_of`; InfiniteFuture: not
  // known.
  absl::Time start = absl::InfiniteFuture();
  absl::Time end = absl::InfiniteFuture();
  absl::Time as_of = absl::InfinitePast();
  bool operator==(const Standing&) const = default;
};

// Whether a watcher that was told `before` need not be told `now`: estimates that moved by less
// than a tenth of what is left, or by less than two seconds, are the same.
inline bool TellsTheSame(const Standing& before, const Standing& now) {
  const auto is_close = [&](absl::Time a, absl::Time b) {
    if (a == absl::InfiniteFuture() || b == absl::InfiniteFuture()) return a == b;
    return absl::AbsDuration(a - b) < std::max(absl::Seconds(2), (b - now.as_of) / 10);
  };
  return before.position == now.position && before.reason == now.reason &&
         before.until == now.until && is_close(before.start, now.start) &&
         is_close(before.end, now.end);
}

}  // namespace kino::frontend
