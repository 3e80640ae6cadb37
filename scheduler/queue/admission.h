// Whether a submission may enter the queue. Pure.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "scheduler/jobs/job.h"

namespace kino::scheduler {

struct AdmissionLimits {
  int64_t max_queued_jobs = 100'000;
  int64_t max_tenant_queued_jobs = 0;  // of one tenant; 0: no limit of its own
  int64_t max_request_bytes = 4 << 20;
};

// Jobs that are QUEUED: all tenants', and those of the job's own tenant.
struct QueuedJobs {
  int64_t all = 0;
  int64_t of_tenant = 0;
};

// RESOURCE_EXHAUSTED with reason QUEUE_FULL, TENANT_QUEUE_FULL or REQUEST_TOO_LARGE when `job` may
// not enter such a queue; INVALID_ARGUMENT when a field that the queue needs is missing or
// malformed.
absl::Status CheckAdmission(const AdmissionLimits& limits, const QueuedJobs& queued,
                            const NewJob& job);

}  // namespace kino::scheduler
