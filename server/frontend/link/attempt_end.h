// Why an attempt ended, from the words of its worker or of a file to those of the store. Free
// functions; thread-safe.
#pragma once

#include "absl/status/status.h"
#include "kino/v1/worker.pb.h"
#include "scheduler/jobs/job.h"

namespace kino::frontend {

// Of a file that could not be opened, written or synced: neither no room nor a server that is short
// of descriptors is the job's fault.
scheduler::FailureCause CauseOfFileError(const absl::Status& status);

scheduler::FailureCause CauseOf(v1::AttemptFailed::Cause cause);

// It took its worker along.
bool IsCrash(scheduler::FailureCause cause);

// A worker's word about an error; never OK, never longer than a person reads.
absl::Status ErrorOf(const v1::AttemptFailed& failed);

}  // namespace kino::frontend
