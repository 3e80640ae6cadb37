// Which queued job a ready worker gets: first in, first out within three priority classes. A pure
// function of snapshots, so that a test states it with literals and every store decides alike.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "scheduler/jobs/job.h"

namespace kino::scheduler {

// A job that may start now: QUEUED, back-off over, start_timeout not passed.
struct QueuedJob {
  std::string id{};
  std::string model{};
  Priority priority = Priority::kNormal;
  int64_t order = 0;  // of submission; kept when the job is queued again
};

// The queue as the policy needs it. It may be cut down to the first job of each (priority, model)
// that is not among the worker's unfit jobs: the result is the same.
struct QueueSnapshot {
  std::vector<QueuedJob> jobs{};  // in any order
};

// A worker that can take one more attempt.
struct ReadyWorker {
  std::string name{};
  std::vector<std::string> models{};   // it serves, loaded or not
  std::set<std::string> unfit_jobs{};  // ids of those it is not to get
};

// The index in `queue.jobs` of the job `worker` should run next: of the jobs that it may get and
// whose model it serves, the highest class, in it the lowest order. Nothing when there is none.
std::optional<size_t> PickNext(const QueueSnapshot& queue, const ReadyWorker& worker);

}  // namespace kino::scheduler
