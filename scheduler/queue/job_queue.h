// The QUEUED jobs in memory, in the order they run: a mirror of the store that its changes keep up
// to date. The policy and timers read it, so none of them walks the store.
//
// The store's times are wall times. Here they become monotonic ones when a job arrives, so that a
// step of the clock neither starts nor expires a job. One thread at a time.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "scheduler/clock.h"
#include "scheduler/jobs/event.h"
#include "scheduler/jobs/job.h"
#include "scheduler/queue/policy.h"

namespace kino::scheduler {

class JobQueue {
 public:
  // `clock` outlives this. A back-off that ends later than `max_backoff` from now was written under
  // another wall clock and counts as one of max_backoff.
  JobQueue(const Clock& clock, absl::Duration max_backoff)
      : clock_(clock), max_backoff_(max_backoff) {}

  // In place of the job of that id, if there is one.
  void Add(const QueuedJob& job);
  // No effect when it is not there.
  void Remove(const std::string& id);
  // Applies a change of the store: Add where it says QUEUED, Remove elsewhere.
  void Apply(const Change& change);

  // A held job is in no snapshot, but keeps its place. No effect when it is not there.
  void Hold(const std::string& id);
  void Unhold(const std::string& id);

  // Jobs of these tenants are in no snapshot, but keep their places; others are again. Costs a step
  // for each job where the tenants are others than before.
  void HoldTenants(std::set<std::string> tenants);

  // Jobs whose back-off is over may start, and are no timer any more. Heads does this, too.
  void EndBackoffs();
  // The jobs that may start now, cut down as QueueSnapshot says.
  QueueSnapshot Heads(const std::vector<ReadyWorker>& workers);

  // What is left of the job's start_timeout, whatever the wall clock was set to since it came.
  // Infinite: it has none, or is not there.
  absl::Duration StartLeft(const std::string& id) const;
  // Jobs whose start_timeout has passed; asked again a second later they are told again.
  std::vector<std::string> TakeOverdue();
  // Monotonic time of the next end of a back-off or passing of a start_timeout; infinite: never.
  // For tests: the link looks at every tick.
  absl::Duration NextTimer() const;

  struct Place {
    QueuedJob job;
    // How much of its back-off is left; zero: it may start.
    absl::Duration backoff_left;
  };
  // Every job in the order of the queue. For tests: sorts all of them.
  std::vector<Place> InOrder() const;

  bool Contains(const std::string& id) const { return entries_.contains(id); }
  int64_t size() const { return static_cast<int64_t>(entries_.size()); }

 private:
  using Key = std::pair<int, int64_t>;  // minus priority, order: ascending as jobs run
  struct Entry {
    QueuedJob job;
    absl::Duration ready_at;  // monotonic
    absl::Duration deadline;  // monotonic
    absl::Duration tell_at;   // that it has passed: first at the deadline
    bool is_held = false;
  };
  // The job may start, unless its tenant is held.
  void SetReady(const Entry& entry);
  void UnsetReady(const Entry& entry);

  static Key KeyOf(const QueuedJob& job) { return {-static_cast<int>(job.priority), job.order}; }

  const Clock& clock_;
  const absl::Duration max_backoff_;
  std::map<std::string, Entry> entries_;                      // by id
  std::map<std::string, std::map<Key, const Entry*>> ready_;  // by model; not of held tenants
  std::set<std::string> held_tenants_;
  std::set<std::pair<absl::Duration, std::string>> backing_off_;  // until when, id
  std::set<std::pair<absl::Duration, std::string>> deadlines_;    // when to tell, id
};

}  // namespace kino::scheduler
