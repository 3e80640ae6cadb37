#include "scheduler/queue/policy.h"

#include <tuple>

namespace kino::scheduler {
namespace {

bool IsBefore(const QueuedJob& a, const QueuedJob& b) {
  return a.priority != b.priority ? a.priority > b.priority : a.order < b.order;
}

bool IsBetter(const ReadyWorker& a, const ReadyWorker& b, const std::string& model) {
  const bool a_lacks_it = !a.loaded.contains(model), b_lacks_it = !b.loaded.contains(model);
  return std::tie(a_lacks_it, a.attempts, a.name) < std::tie(b_lacks_it, b.attempts, b.name);
}

}  // namespace

bool MayTake(const ReadyWorker& worker, const QueuedJob& job) {
  return worker.models.contains(job.model) && !worker.unfit_jobs.contains(job.id);
}

std::optional<Choice> PickNext(const QueueSnapshot& queue,
                               const std::vector<ReadyWorker>& workers) {
  std::optional<Choice> best;
  for (size_t j = 0; j < queue.jobs.size(); ++j) {
    const QueuedJob& job = queue.jobs[j];
    if (best && !IsBefore(job, queue.jobs[best->job])) continue;
    std::optional<size_t> taker;
    for (size_t w = 0; w < workers.size(); ++w) {
      if (!MayTake(workers[w], job)) continue;
      if (!taker || IsBetter(workers[w], workers[*taker], job.model)) taker = w;
    }
    if (taker) best = Choice{.job = j, .worker = *taker};
  }
  return best;
}

}  // namespace kino::scheduler
