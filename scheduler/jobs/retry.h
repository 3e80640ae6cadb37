// What follows when an attempt ends without a result: the one function that decides between another
// attempt and the end. Pure. Classes of failure and who is to blame: interruptions by us and full
// disks are free, crashes quarantine, faults of the request or of the model's files end the job at
// once.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "scheduler/jobs/job.h"
#include "scheduler/jobs/state_machine.h"

namespace kino::scheduler {

struct RetryPolicy {
  int max_attempts = 4;       // that count; interruptions do not
  int max_crashes = 2;        // then QUARANTINED
  int max_out_of_memory = 3;  // then FAILED
  int max_unclean_stops = 3;  // then QUARANTINED: the job may be what brings the machine down
  absl::Duration min_backoff = absl::Seconds(1);
  absl::Duration max_backoff = absl::Seconds(60);
};

struct FailedAttempt {
  int number = 0;  // of the attempt that ended
  FailureCause cause = FailureCause::kInternal;
  absl::Status error{};
  FailureCounts failures{};  // of the job, this attempt included
  bool cancel_requested = false;
};

struct RetryVerdict {
  JobTrigger trigger = JobTrigger::kFailed;  // kAttemptLost, kFailed, kQuarantined or kCancelled
  absl::Duration backoff{};                  // of kAttemptLost; zero for interruptions
  absl::Status error{};                      // of the job, when it ends; OK for kCancelled
  std::string reason{};                      // for the event
};

// `counts` with one more failure of `cause`.
FailureCounts CountFailure(FailureCounts counts, FailureCause cause);

// `uniform` in [0, 1) spreads the back-off: full jitter between min_backoff and min_backoff *
// 2^(n-1), capped.
RetryVerdict DecideAfterFailure(const RetryPolicy& policy, const FailedAttempt& attempt,
                                double uniform);

}  // namespace kino::scheduler
