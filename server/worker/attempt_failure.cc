#include "server/worker/attempt_failure.h"

#include <spdlog/spdlog.h>

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/convert/status.h"

namespace kino::worker {
namespace {

// DEADLINE_EXCEEDED is for run_timeout. What else took too long, such as kino-media on a busy host,
// may do better the next time, and its code must not say otherwise.
absl::Status Told(const Failure& failure) {
  if (failure.cause == v1::AttemptFailed::RUN_TIMEOUT || !absl::IsDeadlineExceeded(failure.error)) {
    return failure.error;
  }
  return absl::UnavailableError(failure.error.message());
}

void AppendFailed(HeldAttempt& attempt, const Failure& failure,
                  const std::vector<v1::StageStats>& stages) {
  const v1::AttemptRef& ref = attempt.ref();
  spdlog::warn("job {} attempt {} failed: {} ({})", ref.job_id(), ref.attempt(),
               std::string(failure.error.message()), v1::AttemptFailed::Cause_Name(failure.cause));
  v1::AttemptEvent event;
  *event.mutable_failed()->mutable_error() = convert::ToRpc(Told(failure));
  event.mutable_failed()->set_cause(failure.cause);
  for (const v1::StageStats& stage : stages) *event.mutable_failed()->add_stages() = stage;
  // An event without chunk bytes is kept in memory, which cannot fail.
  attempt.spool().Append(std::move(event)).IgnoreError();
}

}  // namespace

std::optional<Failure> StopFailure(const HeldAttempt& attempt) {
  switch (attempt.stop_reason()) {
    case StopReason::kNone:
      return std::nullopt;
    case StopReason::kCancelled:
    case StopReason::kDropped:
      return Failure{v1::AttemptFailed::CANCELLED_BY_US, absl::CancelledError("cancelled")};
    case StopReason::kTimedOut:
      return Failure{v1::AttemptFailed::RUN_TIMEOUT,
                     absl::DeadlineExceededError(
                         absl::StrCat("the attempt did not finish within its run_timeout of ",
                                      attempt.command().run_timeout().seconds(), " s"))};
    case StopReason::kSpoolLost:
      return SpoolFailure(attempt.spool().status());
    case StopReason::kInterrupted:
      return Failure{v1::AttemptFailed::INTERRUPTED,
                     absl::UnavailableError("the worker was asked to stop")};
  }
  return std::nullopt;
}

Failure SpoolFailure(const absl::Status& error) {
  const auto cause = IsDiskFull(error)   ? v1::AttemptFailed::DISK_FULL
                     : IsShortage(error) ? v1::AttemptFailed::SHORTAGE
                                         : v1::AttemptFailed::INTERNAL;
  return {cause, error};
}

void FailAttempt(HeldAttempt& attempt, const Failure& failure,
                 const std::vector<v1::StageStats>& stages) {
  attempt.MarkEnded();
  AppendFailed(attempt, failure, stages);
}

bool FailWaitingAttempt(HeldAttempt& attempt, const Failure& failure) {
  if (!attempt.EndWaiting()) return false;
  AppendFailed(attempt, failure, {});
  return true;
}

void FailEndedAttempt(HeldAttempt& attempt, const Failure& failure) {
  AppendFailed(attempt, failure, {});
}

}  // namespace kino::worker
