// Which queued job runs next, and on which worker: first in, first out within three priority
// classes. A pure function of snapshots, so that a test states it with literals. What it picks is
// claimed by one conditional UPDATE in the store.
#pragma once

#include <cstddef>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "scheduler/jobs/job.h"

namespace kino::scheduler {

// The queue as the policy needs it: jobs that may start now. It may be cut down to the first of
// each (priority, model) that some worker may get: the choice is the same.
struct QueueSnapshot {
  std::vector<QueuedJob> jobs{};  // in any order
};

// A worker that can take one more attempt.
struct ReadyWorker {
  std::string name{};
  std::set<std::string> models{};      // it serves, loaded or not
  std::set<std::string> loaded{};      // those it holds
  int attempts = 0;                    // it has already
  std::set<std::string> unfit_jobs{};  // ids of those it is not to get
};

struct Choice {
  size_t job = 0;     // index in QueueSnapshot::jobs
  size_t worker = 0;  // index in the workers
};

bool MayTake(const ReadyWorker& worker, const QueuedJob& job);

// The job of the highest class, and in it of the lowest order, that some worker may get; of these
// workers one that holds its model, then the one with the fewest attempts, then the first by name.
// Nothing when no worker may get any job.
std::optional<Choice> PickNext(const QueueSnapshot& queue, const std::vector<ReadyWorker>& workers);

}  // namespace kino::scheduler
