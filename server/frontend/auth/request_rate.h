// How many calls a second each caller may make: a bucket of tokens for each, which holds a second's
// worth. Takes memory for the callers of the last seconds. Thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "scheduler/clock.h"

namespace kino::frontend {

class RequestRate {
 public:
  // per_second: 0: no limit. `clock` outlives it.
  RequestRate(int64_t per_second, const scheduler::Clock& clock)
      : per_second_(per_second), clock_(clock) {}

  // Whether one more call of the caller, a tenant or a connection, is within the limit; it is
  // counted then.
  bool TryTake(const std::string& caller);

 private:
  struct Bucket {
    double left = 0;
    absl::Duration filled_at;  // monotonic
  };

  static constexpr size_t kLeastSweep = 1024;

  const int64_t per_second_;
  const scheduler::Clock& clock_;
  absl::Mutex mutex_;
  std::map<std::string, Bucket> buckets_ ABSL_GUARDED_BY(mutex_);
  size_t sweep_at_ ABSL_GUARDED_BY(mutex_) = kLeastSweep;
};

}  // namespace kino::frontend
