#include "server/frontend/link/attempt_end.h"

#include "scheduler/status.h"
#include "server/command_line/utf8.h"
#include "server/convert/status.h"

namespace kino::frontend {
namespace {

using scheduler::FailureCause;

constexpr size_t kMaxErrorBytes = 4096;

}  // namespace

FailureCause CauseOfFileError(const absl::Status& status) {
  if (scheduler::ReasonOf(status) == scheduler::kReasonDiskFull) return FailureCause::kDiskFull;
  return absl::IsUnavailable(status) ? FailureCause::kInterrupted : FailureCause::kInternal;
}

FailureCause CauseOf(v1::AttemptFailed::Cause cause) {
  switch (cause) {
    case v1::AttemptFailed::CLIENT:
      return FailureCause::kClient;
    case v1::AttemptFailed::CANCELLED_BY_US:
      return FailureCause::kCancelled;
    case v1::AttemptFailed::OUT_OF_MEMORY:
      return FailureCause::kOutOfMemory;
    case v1::AttemptFailed::MODEL:
      return FailureCause::kModel;
    case v1::AttemptFailed::INTERRUPTED:
    case v1::AttemptFailed::SHORTAGE:
      return FailureCause::kInterrupted;
    case v1::AttemptFailed::RUN_TIMEOUT:
      return FailureCause::kRunTimeout;
    case v1::AttemptFailed::DISK_FULL:
      return FailureCause::kDiskFull;
    case v1::AttemptFailed::DEVICE_LOST:
      return FailureCause::kDeviceLost;
    default:
      return FailureCause::kInternal;
  }
}

bool IsCrash(FailureCause cause) {
  return cause == FailureCause::kCrash || cause == FailureCause::kHang ||
         cause == FailureCause::kDeviceLost;
}

absl::Status ErrorOf(const v1::AttemptFailed& failed) {
  google::rpc::Status rpc = failed.error();
  if (rpc.message().size() > kMaxErrorBytes) {
    rpc.set_message(command_line::TruncateUtf8(rpc.message(), kMaxErrorBytes));
  }
  absl::Status status = convert::FromRpc(rpc);
  if (status.ok()) status = absl::InternalError("the worker gave no reason");
  return status;
}

}  // namespace kino::frontend
