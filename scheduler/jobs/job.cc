#include "scheduler/jobs/job.h"

namespace kino::scheduler {

const char* JobStateName(JobState state) {
  switch (state) {
    case JobState::kQueued:
      return "QUEUED";
    case JobState::kRunning:
      return "RUNNING";
    case JobState::kSucceeded:
      return "SUCCEEDED";
    case JobState::kFailed:
      return "FAILED";
    case JobState::kCancelled:
      return "CANCELLED";
    case JobState::kQuarantined:
      return "QUARANTINED";
    case JobState::kExpired:
      return "EXPIRED";
  }
  return "UNKNOWN";
}

const char* PriorityName(Priority priority) {
  switch (priority) {
    case Priority::kLow:
      return "LOW";
    case Priority::kNormal:
      return "NORMAL";
    case Priority::kHigh:
      return "HIGH";
  }
  return "UNKNOWN";
}

const char* FailureCauseName(FailureCause cause) {
  switch (cause) {
    case FailureCause::kNone:
      return "NONE";
    case FailureCause::kClient:
      return "CLIENT";
    case FailureCause::kOutOfMemory:
      return "OUT_OF_MEMORY";
    case FailureCause::kModel:
      return "MODEL";
    case FailureCause::kInternal:
      return "INTERNAL";
    case FailureCause::kInterrupted:
      return "INTERRUPTED";
    case FailureCause::kCrash:
      return "CRASH";
    case FailureCause::kHang:
      return "HANG";
    case FailureCause::kLeaseLost:
      return "LEASE_LOST";
    case FailureCause::kCancelled:
      return "CANCELLED";
    case FailureCause::kRunTimeout:
      return "RUN_TIMEOUT";
    case FailureCause::kDiskFull:
      return "DISK_FULL";
    case FailureCause::kDeviceLost:
      return "DEVICE_LOST";
    case FailureCause::kUncleanStop:
      return "UNCLEAN_STOP";
  }
  return "UNKNOWN";
}

}  // namespace kino::scheduler
