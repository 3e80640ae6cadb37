// What the dispatcher does when every job fits: picks the next one for a worker and claims it.
#pragma once

#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "scheduler/queue/policy.h"
#include "scheduler/store/job_store.h"

namespace kino::scheduler {

// The job that `worker` would get at `now`: none whose back-off lasts longer.
inline absl::StatusOr<std::optional<QueuedJob>> FindNext(JobStore& store, const ReadyWorker& worker,
                                                         absl::Time now = absl::InfiniteFuture()) {
  absl::StatusOr<std::vector<QueuedJob>> jobs = store.Queue();
  if (!jobs.ok()) return jobs.status();
  std::erase_if(*jobs, [&](const QueuedJob& job) { return job.retry_not_before > now; });
  const QueueSnapshot queue{*std::move(jobs)};
  const std::optional<Choice> choice = PickNext(queue, {worker});
  if (!choice) return std::nullopt;
  return queue.jobs[choice->job];
}

// Blocks. Nothing: there is none for it. One that another worker takes meanwhile is passed over.
inline absl::StatusOr<std::optional<ClaimedAttempt>> ClaimNext(
    JobStore& store, const ReadyWorker& worker, absl::Time now = absl::InfiniteFuture()) {
  while (true) {
    const absl::StatusOr<std::optional<QueuedJob>> found = FindNext(store, worker, now);
    if (!found.ok()) return found.status();
    if (!found->has_value()) return std::nullopt;
    const absl::Duration start_left =
        now == absl::InfiniteFuture() ? absl::InfiniteDuration() : (*found)->start_deadline - now;
    absl::StatusOr<std::optional<ClaimedAttempt>> claim =
        store.Claim((*found)->id, worker.name, /*process_id=*/0, start_left);
    if (!claim.ok() || claim->has_value()) return claim;
  }
}

}  // namespace kino::scheduler
