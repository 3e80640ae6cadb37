#include "scheduler/jobs/retry.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"

namespace kino::scheduler {

namespace {

absl::Duration Backoff(const RetryPolicy& policy, int failures, double uniform) {
  const double doublings = std::clamp(failures - 1, 0, 30);
  const absl::Duration ceiling =
      std::min(policy.max_backoff, policy.min_backoff * std::exp2(doublings));
  return policy.min_backoff +
         (std::max(ceiling, policy.min_backoff) - policy.min_backoff) * uniform;
}

std::string Describe(const FailedAttempt& attempt) {
  const std::string message(attempt.error.message());
  return message.empty() ? FailureCauseName(attempt.cause) : message;
}

RetryVerdict End(JobTrigger trigger, absl::Status error, std::string reason) {
  return {
      .trigger = trigger, .backoff = {}, .error = std::move(error), .reason = std::move(reason)};
}

absl::Status LimitMet(const FailedAttempt& attempt, const std::string& what) {
  return absl::Status(attempt.error.code(), absl::StrCat(what, "; the last: ", Describe(attempt)));
}

}  // namespace

FailureCounts CountFailure(FailureCounts counts, FailureCause cause) {
  switch (cause) {
    case FailureCause::kCrash:
    case FailureCause::kHang:
    case FailureCause::kDeviceLost:
      ++counts.crashes;
      break;
    case FailureCause::kOutOfMemory:
      ++counts.out_of_memory;
      break;
    case FailureCause::kUncleanStop:
      ++counts.unclean_stops;
      ++counts.interruptions;
      break;
    case FailureCause::kInterrupted:
    case FailureCause::kDiskFull:
      ++counts.interruptions;
      break;
    default:
      break;
  }
  return counts;
}

RetryVerdict DecideAfterFailure(const RetryPolicy& policy, const FailedAttempt& attempt,
                                double uniform) {
  // Whoever asked for the end does not care how the attempt came to it.
  if (attempt.cancel_requested || attempt.cause == FailureCause::kCancelled) {
    return End(JobTrigger::kCancelled, absl::OkStatus(), "cancelled");
  }
  const FailureCounts& failures = attempt.failures;
  const int counted = attempt.number - failures.interruptions;
  switch (attempt.cause) {
    case FailureCause::kClient:
    case FailureCause::kModel:
    case FailureCause::kRunTimeout:
      return End(JobTrigger::kFailed, attempt.error, Describe(attempt));
    case FailureCause::kUncleanStop:
      if (failures.unclean_stops >= policy.max_unclean_stops) {
        return End(JobTrigger::kQuarantined,
                   LimitMet(attempt, absl::StrCat("ran at ", failures.unclean_stops,
                                                  " unclean stops of the machine")),
                   "quarantined");
      }
      return {.trigger = JobTrigger::kAttemptLost,
              .backoff = {},
              .error = {},
              .reason = Describe(attempt)};
    case FailureCause::kInterrupted:
    case FailureCause::kDiskFull:
      return {.trigger = JobTrigger::kAttemptLost,
              .backoff = {},
              .error = {},
              .reason = Describe(attempt)};
    case FailureCause::kCrash:
    case FailureCause::kHang:
    case FailureCause::kDeviceLost:
      if (failures.crashes >= policy.max_crashes) {
        return End(JobTrigger::kQuarantined,
                   LimitMet(attempt, absl::StrCat("ended its worker ", failures.crashes, " times")),
                   "quarantined");
      }
      break;
    case FailureCause::kOutOfMemory:
      if (failures.out_of_memory >= policy.max_out_of_memory) {
        return End(
            JobTrigger::kFailed,
            LimitMet(attempt, absl::StrCat("out of memory ", failures.out_of_memory, " times")),
            "out of memory");
      }
      break;
    default:
      break;
  }
  if (counted >= policy.max_attempts) {
    return End(JobTrigger::kFailed, LimitMet(attempt, absl::StrCat(counted, " attempts failed")),
               "too many attempts");
  }
  return {.trigger = JobTrigger::kAttemptLost,
          .backoff = Backoff(policy, counted, uniform),
          .error = {},
          .reason = Describe(attempt)};
}

}  // namespace kino::scheduler
