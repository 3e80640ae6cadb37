// The scheduler's only door to time. Wall time goes into records; monotonic time decides about
// leases, so that a jump of the wall clock loses none. The two have different types and cannot be
// mixed up. Thread-safe. main() owns one SystemClock and passes references; tests use
// tests/support/fake_clock.h.
#pragma once

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace kino::scheduler {

class Clock {
 public:
  virtual ~Clock() = default;
  // Wall time. May jump either way.
  virtual absl::Time Now() const = 0;
  // Time since an arbitrary moment; never falls, never jumps. Only differences mean anything.
  virtual absl::Duration Monotonic() const = 0;
};

class SystemClock final : public Clock {
 public:
  absl::Time Now() const override { return absl::Now(); }
  absl::Duration Monotonic() const override;  // CLOCK_MONOTONIC
};

}  // namespace kino::scheduler
