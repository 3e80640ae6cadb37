#include "scheduler/queue/policy.h"

#include <algorithm>

namespace kino::scheduler {

std::optional<size_t> PickNext(const QueueSnapshot& queue, const ReadyWorker& worker) {
  std::optional<size_t> best;
  for (size_t i = 0; i < queue.jobs.size(); ++i) {
    const QueuedJob& job = queue.jobs[i];
    if (std::find(worker.models.begin(), worker.models.end(), job.model) == worker.models.end()) {
      continue;
    }
    if (worker.unfit_jobs.contains(job.id)) continue;
    if (!best || job.priority > queue.jobs[*best].priority ||
        (job.priority == queue.jobs[*best].priority && job.order < queue.jobs[*best].order)) {
      best = i;
    }
  }
  return best;
}

}  // namespace kino::scheduler
