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
  if (!held_tenants_.contains(entry.job.tenant)) ready_[entry.job.model][KeyOf(entry.job)] = &entry;
}

void JobQueue::UnsetReady(const Entry& entry) {
  const auto model = ready_.find(entry.job.model);
  if (model == ready_.end()) return;
  const auto at = model->second.find(KeyOf(entry.job));
  if (at != model->second.end() && at->second == &entry) model->second.erase(at);
  if (model->second.empty()) ready_.erase(model);
}

void JobQueue::HoldTenants(std::set<std::string> tenants) {
  if (tenants == held_tenants_) return;
  held_tenants_ = std::move(tenants);
  for (const auto& [id, entry] : entries_) {
    if (backing_off_.contains({entry.ready_at, id})) continue;
    if (held_tenants_.contains(entry.job.tenant)) {
      UnsetReady(entry);
    } else {
      SetReady(entry);
    }
  }
}

void JobQueue::Remove(const std::string& id) {
  const auto found = entries_.find(id);
  if (found == entries_.end()) return;
  const Entry& entry = found->second;
  backing_off_.erase({entry.ready_at, id});
  deadlines_.erase({entry.tell_at, id});
  UnsetReady(entry);
  entries_.erase(found);
}

void JobQueue::Apply(const Change& change) {
  if (change.queued) {
    Add(*change.queued);
  } else {
    Remove(change.job_id);
  }
}

void JobQueue::Hold(const std::string& id) {
  if (const auto found = entries_.find(id); found != entries_.end()) found->second.is_held = true;
}

void JobQueue::Unhold(const std::string& id) {
  if (const auto found = entries_.find(id); found != entries_.end()) found->second.is_held = false;
}

void JobQueue::EndBackoffs() {
  const absl::Duration now = clock_.Monotonic();
  while (!backing_off_.empty() && backing_off_.begin()->first <= now) {
    SetReady(entries_.at(backing_off_.begin()->second));
    backing_off_.erase(backing_off_.begin());
  }
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
      for (const auto& [key, entry] : jobs->second) {
        if (entry->is_held || !MayTake(worker, entry->job)) continue;
        if (told.insert(entry->job.id).second) heads.jobs.push_back(entry->job);
        break;
      }
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
