#include "scheduler/clock.h"

#include <ctime>

namespace kino::scheduler {

absl::Duration SystemClock::Monotonic() const {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return absl::DurationFromTimespec(now);
}

}  // namespace kino::scheduler
