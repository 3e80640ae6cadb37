#include "server/config/stop_times.h"

#include <algorithm>

namespace kino::config {
namespace {

constexpr absl::Duration kGrace = absl::Seconds(5);
constexpr absl::Duration kFarewell = absl::Seconds(3);

}  // namespace

StopTimes StopTimesOf(absl::Duration stop_deadline) {
  StopTimes times;
  times.grace = std::min(kGrace, stop_deadline / 2);
  times.farewell = std::min(kFarewell, stop_deadline / 4);
  times.drain = std::max(stop_deadline * 0.9 - times.grace - times.farewell, absl::ZeroDuration());
  return times;
}

}  // namespace kino::config
