// How supervisor.stop_deadline, from SIGTERM to SIGKILL, is shared out, so that what runs is given
// back before it is killed: a killed attempt counts as a crash. Free function over values.
#pragma once

#include "absl/time/time.h"

namespace kino::config {

struct StopTimes {
  // One after the other, from SIGTERM on.
  absl::Duration drain;     // a running attempt may end by itself
  absl::Duration grace;     // an interrupted one notices it
  absl::Duration farewell;  // its last events are acknowledged
  // The sum, which the frontend waits for; the rest of the deadline is its own, to close the store.
  absl::Duration workers() const { return drain + grace + farewell; }
};

// A short deadline takes the time to drain first: an attempt that is interrupted runs again, one
// that is killed has cost something.
StopTimes StopTimesOf(absl::Duration stop_deadline);

}  // namespace kino::config
