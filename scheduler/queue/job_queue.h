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

struct TenantJobs {
  int64_t queued = 0;
  int64_t held = 0;  // of those queued
  int64_t running = 0;
  bool operator==(const TenantJobs&) const = default;
};

class JobQueue {
 public:
  // `clock` outlives this. A back-off that ends later than `max_backoff` from now was written under
  // another wall clock and counts as one of max_backoff. max_tenant_running: a tenant's jobs that
  // may run at a time; 0: any number.
  JobQueue(const Clock& clock, absl::Duration max_backoff, int64_t max_tenant_running = 0)
      : clock_(clock), max_backoff_(max_backoff), max_tenant_running_(max_tenant_running) {}

  // In place of the job of that id, if there is one.
  void Add(const QueuedJob& job);
  // No effect when it is not there.
  void Remove(const std::string& id);
  // A job that runs as this begins.
  void AddRunning(const std::string& id, const std::string& tenant);
  // Applies a change of the store: Add where it says QUEUED, Remove elsewhere. True: a tenant has
  // fewer jobs running than before.
  bool Apply(const Change& change);

  // A held job is in no snapshot, but keeps its place; it counts as one that runs. No effect when
  // it is not there.
  void Hold(const std::string& id);
  void Unhold(const std::string& id);

  // Jobs of these tenants are in no snapshot, but keep their places; others are again.
  void HoldTenants(std::set<std::string> tenants) { held_tenants_ = std::move(tenants); }
  // Those that have as many jobs running as they may. Their jobs are in no snapshot either.
  std::set<std::string> TenantsAtLimit() const;

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

  // Of every tenant that has any.
  const std::map<std::string, TenantJobs>& tenants() const { return tenants_; }

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
  using Entries = std::map<Key, const Entry*>;

  // The job may start, unless its tenant may start none.
  void SetReady(const Entry& entry);
  void UnsetReady(const Entry& entry);
  bool MayStart(const std::string& tenant) const;
  // Of a model's ready jobs the first that this worker may get; null: none.
  const Entry* FirstFor(const ReadyWorker& worker,
                        const std::map<std::string, Entries>& by_tenant) const;
  // `by` more of the tenant's jobs are what `member` counts.
  void Count(const std::string& tenant, int64_t TenantJobs::*member, int64_t by);
  // Whether the tenant has as many jobs running, or held, as it may.
  bool IsAtLimit(const TenantJobs& jobs) const {
    return max_tenant_running_ > 0 && jobs.running + jobs.held >= max_tenant_running_;
  }

  static Key KeyOf(const QueuedJob& job) { return {-static_cast<int>(job.priority), job.order}; }

  const Clock& clock_;
  const absl::Duration max_backoff_;
  const int64_t max_tenant_running_;
  std::map<std::string, Entry> entries_;                         // by id
  std::map<std::string, std::map<std::string, Entries>> ready_;  // by model, by tenant
  std::set<std::string> held_tenants_;
  std::map<std::string, std::string> running_;  // tenants of RUNNING jobs, by id
  std::map<std::string, TenantJobs> tenants_;
  std::set<std::pair<absl::Duration, std::string>> backing_off_;  // until when, id
  std::set<std::pair<absl::Duration, std::string>> deadlines_;    // when to tell, id
};

}  // namespace kino::scheduler
