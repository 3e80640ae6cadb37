#include "scheduler/queue/admission.h"

#include "absl/strings/str_cat.h"
#include "scheduler/status.h"

namespace kino::scheduler {

absl::Status CheckAdmission(const AdmissionLimits& limits, const QueuedJobs& queued,
                            const NewJob& job) {
  if (job.tenant.empty()) return absl::InvalidArgumentError("a job needs a tenant");
  if (job.model.empty()) return absl::InvalidArgumentError("a job needs a model");
  if (job.priority < Priority::kLow || job.priority > Priority::kHigh) {
    return absl::InvalidArgumentError(
        absl::StrCat("priority: want 1 to 3, got ", static_cast<int>(job.priority)));
  }
  if (job.start_timeout <= absl::ZeroDuration()) {
    return absl::InvalidArgumentError(
        absl::StrCat("start_timeout: want more than 0, got ", FormatDuration(job.start_timeout)));
  }
  if (job.run_timeout <= absl::ZeroDuration()) {
    return absl::InvalidArgumentError(
        absl::StrCat("run_timeout: want more than 0, got ", FormatDuration(job.run_timeout)));
  }
  if (static_cast<int64_t>(job.request.size()) > limits.max_request_bytes) {
    return WithReason(absl::ResourceExhaustedError(
                          absl::StrCat("the request has ", job.request.size(),
                                       " bytes, the limit is ", limits.max_request_bytes)),
                      kReasonRequestTooLarge);
  }
  if (queued.all >= limits.max_queued_jobs) {
    return WithReason(absl::ResourceExhaustedError(absl::StrCat("the queue is full: ", queued.all,
                                                                " jobs wait, the limit is ",
                                                                limits.max_queued_jobs)),
                      kReasonQueueFull);
  }
  if (limits.max_tenant_queued_jobs > 0 && queued.of_tenant >= limits.max_tenant_queued_jobs) {
    return WithReason(absl::ResourceExhaustedError(absl::StrCat(
                          queued.of_tenant, " jobs of tenant '", job.tenant,
                          "' wait, the limit of a tenant is ", limits.max_tenant_queued_jobs)),
                      kReasonTenantQueueFull);
  }
  return absl::OkStatus();
}

}  // namespace kino::scheduler
