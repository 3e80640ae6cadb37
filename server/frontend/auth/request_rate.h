// How many calls a second each tenant may make: a bucket of tokens for each, which holds a second's
// worth. Thread-safe.
#pragma once

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

  // Whether one more call of the tenant is within the limit; it is counted then.
  bool TryTake(const std::string& tenant);

 private:
  struct Bucket {
    double left = 0;
    absl::Duration filled_at;  // monotonic
  };

  const int64_t per_second_;
  const scheduler::Clock& clock_;
  absl::Mutex mutex_;
  std::map<std::string, Bucket> buckets_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace kino::frontend
