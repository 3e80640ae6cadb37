// How long something has been waited for, by a process that may itself stand still: it is stopped
// and continued, or swapped out, or its machine sleeps. What happened meanwhile lies unread in its
// sockets, so the time it stood still says nothing about the other side. The waiting counts only as
// far as this process ran, and after a standstill it runs for a while before anything is judged.
// All times are monotonic. One thread, whose loop comes round more often than kLongRound.
#pragma once

#include <algorithm>
#include <optional>

#include "absl/time/time.h"

namespace kino::worker {

class Patience {
 public:
  // A round of the loop that takes longer was no round: the process stood still.
  static constexpr absl::Duration kLongRound = absl::Seconds(1);
  // Enough for what lies unread, and for an answer to a heartbeat sent since.
  static constexpr absl::Duration kListenFirst = absl::Seconds(2);

  // In each round. `since`: from when on it is waited for; another value starts again.
  void Round(absl::Duration now, absl::Duration since) {
    const absl::Duration passed = last_round_ ? now - *last_round_ : absl::ZeroDuration();
    last_round_ = now;
    if (since_ != since) {
      since_ = since;
      waited_ = std::clamp(now - since, absl::ZeroDuration(), kLongRound);
    } else {
      waited_ += std::min(passed, kLongRound);
    }
    if (passed > kLongRound) {
      listened_ = absl::ZeroDuration();
    } else {
      listened_ += passed;
    }
  }
  // It was waited for at least so long, and what came meanwhile has been heard.
  bool IsOver(absl::Duration limit) const { return waited_ >= limit && listened_ >= kListenFirst; }
  absl::Duration waited() const { return waited_; }

 private:
  std::optional<absl::Duration> last_round_, since_;
  absl::Duration waited_ = absl::ZeroDuration();
  // Since the last standstill.
  absl::Duration listened_ = absl::InfiniteDuration();
};

}  // namespace kino::worker
