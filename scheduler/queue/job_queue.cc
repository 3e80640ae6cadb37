#include "scheduler/queue/job_queue.h"

#include <algorithm>

namespace kino::scheduler {
namespace {

// For the store to take an expiry that it could not take before.
constexpr absl::Duration kAskAgain = absl::Seconds(1);

}  // namespace

void JobQueue::Add(const QueuedJob& job) {
  Remove(job.id);
  const absl::Duration now = clock_.Monotonic();
  const absl::Time wall = clock_.Now();
  Entry& entry = entries_[job.id];
  entry.job = job;
  Count(job.tenant, &TenantJobs::queued, 1);
  entry.ready_at =
      now + std::clamp(job.retry_not_before - wall, absl::ZeroDuration(), max_backoff_);
  entry.deadline = job.start_deadline == absl::InfiniteFuture()
                       ? absl::InfiniteDuration()
                       : now + std::max(job.start_deadline - wall, absl::ZeroDuration());
  entry.tell_at = entry.deadline;
  if (entry.ready_at > now) {
    backing_off_.emplace(entry.ready_at, job.id);
  } else {
    SetReady(entry);
  }
  if (entry.deadline != absl::InfiniteDuration()) deadlines_.emplace(entry.tell_at, job.id);
}

void JobQueue::SetReady(const Entry& entry) {
  ready_[entry.job.model][entry.job.tenant][KeyOf(entry.job)] = &entry;
}

void JobQueue::UnsetReady(const Entry& entry) {
  const auto model = ready_.find(entry.job.model);
  if (model == ready_.end()) return;
  const auto tenant = model->second.find(entry.job.tenant);
  if (tenant == model->second.end()) return;
  const auto at = tenant->second.find(KeyOf(entry.job));
  if (at != tenant->second.end() && at->second == &entry) tenant->second.erase(at);
  if (tenant->second.empty()) model->second.erase(tenant);
  if (model->second.empty()) ready_.erase(model);
}

bool JobQueue::MayStart(const std::string& tenant) const {
  if (held_tenants_.contains(tenant)) return false;
  const auto jobs = tenants_.find(tenant);
  return jobs == tenants_.end() || !IsAtLimit(jobs->second);
}

std::set<std::string> JobQueue::TenantsAtLimit() const {
  std::set<std::string> tenants;
  for (const auto& [tenant, jobs] : tenants_)
    if (IsAtLimit(jobs)) tenants.insert(tenant);
  return tenants;
}

void JobQueue::Count(const std::string& tenant, int64_t TenantJobs::*member, int64_t by) {
  TenantJobs& jobs = tenants_[tenant];
  jobs.*member += by;
  if (jobs == TenantJobs()) tenants_.erase(tenant);
}

void JobQueue::Remove(const std::string& id) {
  const auto found = entries_.find(id);
  if (found == entries_.end()) return;
  Unhold(id);
  const Entry& entry = found->second;
  backing_off_.erase({entry.ready_at, id});
  deadlines_.erase({entry.tell_at, id});
  UnsetReady(entry);
  Count(entry.job.tenant, &TenantJobs::queued, -1);
  entries_.erase(found);
}

void JobQueue::AddRunning(const std::string& id, const std::string& tenant) {
  if (running_.emplace(id, tenant).second) Count(tenant, &TenantJobs::running, 1);
}

bool JobQueue::Apply(const Change& change) {
  const std::string& id = change.job_id;
  const auto entry = entries_.find(id);
  if (change.event.state == JobState::kRunning && entry != entries_.end())
    AddRunning(id, entry->second.job.tenant);
  if (change.queued) {
    Add(*change.queued);
  } else {
    Remove(id);
  }
  if (change.event.state == JobState::kRunning) return false;
  const auto running = running_.find(id);
  if (running == running_.end()) return false;
  Count(running->second, &TenantJobs::running, -1);
  running_.erase(running);
  return true;
}

void JobQueue::Hold(const std::string& id) {
  const auto found = entries_.find(id);
  if (found == entries_.end() || found->second.is_held) return;
  found->second.is_held = true;
  Count(found->second.job.tenant, &TenantJobs::held, 1);
}

void JobQueue::Unhold(const std::string& id) {
  const auto found = entries_.find(id);
  if (found == entries_.end() || !found->second.is_held) return;
  found->second.is_held = false;
  Count(found->second.job.tenant, &TenantJobs::held, -1);
}

void JobQueue::EndBackoffs() {
  const absl::Duration now = clock_.Monotonic();
  while (!backing_off_.empty() && backing_off_.begin()->first <= now) {
    SetReady(entries_.at(backing_off_.begin()->second));
    backing_off_.erase(backing_off_.begin());
  }
}

const JobQueue::Entry* JobQueue::FirstFor(const ReadyWorker& worker,
                                          const std::map<std::string, Entries>& by_tenant) const {
  const Entry* first = nullptr;
  for (const auto& [tenant, entries] : by_tenant) {
    if (!MayStart(tenant)) continue;
    const auto fits = [&](const auto& entry) {
      return !entry.second->is_held && MayTake(worker, entry.second->job);
    };
    const auto own = std::find_if(entries.begin(), entries.end(), fits);
    if (own == entries.end()) continue;
    if (first == nullptr || own->first < KeyOf(first->job)) first = own->second;
  }
  return first;
}

QueueSnapshot JobQueue::Heads(const std::vector<ReadyWorker>& workers) {
  EndBackoffs();
  QueueSnapshot heads;
  std::set<std::string> told;
  for (const ReadyWorker& worker : workers) {
    for (const std::string& model : worker.models) {
      const auto jobs = ready_.find(model);
      if (jobs == ready_.end()) continue;
      // Of the highest class that has one for it: lower ones of this model would not be chosen.
      const Entry* const first = FirstFor(worker, jobs->second);
      if (first != nullptr && told.insert(first->job.id).second) heads.jobs.push_back(first->job);
    }
  }
  return heads;
}

absl::Duration JobQueue::StartLeft(const std::string& id) const {
  const auto found = entries_.find(id);
  if (found == entries_.end()) return absl::InfiniteDuration();
  return std::max(found->second.deadline - clock_.Monotonic(), absl::ZeroDuration());
}

std::vector<std::string> JobQueue::TakeOverdue() {
  const absl::Duration now = clock_.Monotonic();
  std::vector<std::string> overdue;
  while (!deadlines_.empty() && deadlines_.begin()->first <= now) {
    overdue.push_back(deadlines_.begin()->second);
    deadlines_.erase(deadlines_.begin());
  }
  for (const std::string& id : overdue) {
    Entry& entry = entries_.at(id);
    entry.tell_at = now + kAskAgain;
    deadlines_.emplace(entry.tell_at, id);
  }
  return overdue;
}

absl::Duration JobQueue::NextTimer() const {
  absl::Duration next = absl::InfiniteDuration();
  if (!backing_off_.empty()) next = std::min(next, backing_off_.begin()->first);
  if (!deadlines_.empty()) next = std::min(next, deadlines_.begin()->first);
  return next;
}

std::vector<JobQueue::Place> JobQueue::InOrder() const {
  const absl::Duration now = clock_.Monotonic();
  std::vector<Place> places;
  places.reserve(entries_.size());
  for (const auto& [id, entry] : entries_) {
    places.push_back(
        {.job = entry.job, .backoff_left = std::max(entry.ready_at - now, absl::ZeroDuration())});
  }
  std::sort(places.begin(), places.end(),
            [](const Place& a, const Place& b) { return KeyOf(a.job) < KeyOf(b.job); });
  return places;
}

}  // namespace kino::scheduler
