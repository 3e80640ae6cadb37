// What an attempt that does not succeed is reported as. Free functions; thread-safe.
#pragma once

#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "kino/v1/worker.pb.h"
#include "server/worker/held_attempts.h"

namespace kino::worker {

struct Failure {
  v1::AttemptFailed::Cause cause;
  absl::Status error;
};

// What a stopped attempt is reported as; the token's CANCELLED says only that it was stopped.
// Nothing: nobody stopped it.
std::optional<Failure> StopFailure(const HeldAttempt& attempt);
// Of the disk that the attempt's spool lies on, or of the spool itself: DISK_FULL and SHORTAGE are
// nobody's fault, anything else is INTERNAL.
Failure SpoolFailure(const absl::Status& error);

// Ends an attempt that the engine thread has begun. The engine thread alone.
void FailAttempt(HeldAttempt& attempt, const Failure& failure,
                 const std::vector<v1::StageStats>& stages);
// Ends an attempt that still waits, from whichever thread. False: it has begun, or has ended.
bool FailWaitingAttempt(HeldAttempt& attempt, const Failure& failure);
// Replaces the last event of an attempt that has ended and whose spool was given up. The link
// alone.
void FailEndedAttempt(HeldAttempt& attempt, const Failure& failure);

}  // namespace kino::worker
