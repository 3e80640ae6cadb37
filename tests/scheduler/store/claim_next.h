// What the dispatcher does when every job fits: finds the next one for a worker and claims it.
#pragma once

#include <optional>

#include "absl/status/statusor.h"
#include "scheduler/store/job_store.h"

namespace kino::scheduler {

// Blocks. Nothing: there is none for it. One that another worker takes meanwhile is passed over.
inline absl::StatusOr<std::optional<ClaimedAttempt>> ClaimNext(JobStore& store,
                                                               const ReadyWorker& worker) {
  while (true) {
    const absl::StatusOr<std::optional<Job>> found = store.FindNext(worker);
    if (!found.ok()) return found.status();
    if (!found->has_value()) return std::nullopt;
    absl::StatusOr<std::optional<ClaimedAttempt>> claim = store.Claim((*found)->id, worker.name);
    if (!claim.ok() || claim->has_value()) return claim;
  }
}

}  // namespace kino::scheduler
