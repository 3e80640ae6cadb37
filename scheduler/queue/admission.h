// Whether a submission may enter the queue. Pure.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "scheduler/jobs/job.h"

namespace kino::scheduler {

struct AdmissionLimits {
  int64_t max_queued_jobs = 100'000;
  int64_t max_request_bytes = 4 << 20;
};

// RESOURCE_EXHAUSTED with reason QUEUE_FULL or REQUEST_TOO_LARGE when `job` may not enter a queue
// of `queued_jobs`; INVALID_ARGUMENT when a field that the queue needs is missing or malformed.
absl::Status CheckAdmission(const AdmissionLimits& limits, int64_t queued_jobs, const NewJob& job);

}  // namespace kino::scheduler
