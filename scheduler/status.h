// Early returns on absl::Status, and the machine-readable reason that some of the scheduler's
// statuses carry. The macros are token for token those of engine/core/status.h, which the scheduler
// may not include; a file may include both. Public headers of the scheduler do not include this
// file.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

// KINO_RETURN_IF_ERROR(expr): returns expr's status from the enclosing function unless it is OK.
#define KINO_RETURN_IF_ERROR(expr)               \
  do {                                           \
    ::absl::Status kino_status_ = (expr);        \
    if (!kino_status_.ok()) return kino_status_; \
  } while (false)

#define KINO_CONCAT_INNER_(a, b) a##b
#define KINO_CONCAT_(a, b) KINO_CONCAT_INNER_(a, b)

// KINO_ASSIGN_OR_RETURN(lhs, expr): lhs = *expr, or returns expr's status.
#define KINO_ASSIGN_OR_RETURN(lhs, expr) \
  KINO_ASSIGN_OR_RETURN_(KINO_CONCAT_(kino_statusor_, __LINE__), lhs, expr)
#define KINO_ASSIGN_OR_RETURN_(tmp, lhs, expr) \
  auto tmp = (expr);                           \
  if (!tmp.ok()) return tmp.status();          \
  lhs = *std::move(tmp)

namespace kino::scheduler {

// Reasons, in the spelling of google.rpc.ErrorInfo.
inline constexpr char kReasonStaleAttempt[] = "STALE_ATTEMPT";          // ABORTED
inline constexpr char kReasonRequestIdReused[] = "REQUEST_ID_REUSED";   // ALREADY_EXISTS
inline constexpr char kReasonQueueFull[] = "QUEUE_FULL";                // RESOURCE_EXHAUSTED
inline constexpr char kReasonTenantQueueFull[] = "TENANT_QUEUE_FULL";   // RESOURCE_EXHAUSTED
inline constexpr char kReasonRequestTooLarge[] = "REQUEST_TOO_LARGE";   // RESOURCE_EXHAUSTED
inline constexpr char kReasonDiskFull[] = "DISK_FULL";                  // RESOURCE_EXHAUSTED
inline constexpr char kReasonStoreUnavailable[] = "STORE_UNAVAILABLE";  // UNAVAILABLE
inline constexpr char kReasonStoreLocked[] = "STORE_LOCKED";    // FAILED_PRECONDITION, when opening
inline constexpr char kReasonStoreTooNew[] = "STORE_TOO_NEW";   // FAILED_PRECONDITION, when opening
inline constexpr char kReasonStoreDamaged[] = "STORE_DAMAGED";  // DATA_LOSS
inline constexpr char kReasonJobNotEnded[] = "JOB_NOT_ENDED";   // FAILED_PRECONDITION
inline constexpr char kReasonJobNotRequeuable[] = "JOB_NOT_REQUEUABLE";  // FAILED_PRECONDITION
inline constexpr char kReasonAssetInUse[] = "ASSET_IN_USE";              // FAILED_PRECONDITION
inline constexpr char kReasonDoesNotFit[] = "DOES_NOT_FIT";              // of a job's error

// `status` with `reason` attached.
absl::Status WithReason(absl::Status status, const char* reason);

// The reason attached to `status`, or "".
std::string ReasonOf(const absl::Status& status);

// The attempt that spoke does not own its job (any more): it must stop and drop what it has.
inline bool IsStaleAttempt(const absl::Status& status) {
  return ReasonOf(status) == kReasonStaleAttempt;
}

}  // namespace kino::scheduler
