// How long a child that ended waits before it is started again: `min`, doubling up to `max`; back
// at `min` once a child has run for `healthy_after`. One thread at a time.
#pragma once

#include <algorithm>

#include "absl/time/time.h"

namespace kino::supervisor {

class RestartBackoff {
 public:
  RestartBackoff(absl::Duration min, absl::Duration max, absl::Duration healthy_after)
      : min_(min), max_(max), healthy_after_(healthy_after) {}

  // The pause after a child that ran for `ran_for` has ended.
  absl::Duration NextPause(absl::Duration ran_for) {
    if (ran_for >= healthy_after_) failures_ = 0;
    absl::Duration pause = min_;
    for (int i = 0; i < failures_ && pause < max_; ++i) pause *= 2;
    ++failures_;
    return std::min(pause, max_);
  }

 private:
  const absl::Duration min_;
  const absl::Duration max_;
  const absl::Duration healthy_after_;
  int failures_ = 0;
};

}  // namespace kino::supervisor
