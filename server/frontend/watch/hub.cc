#include "server/frontend/watch/hub.h"

#include <algorithm>
#include <utility>

#include "server/frontend/watch/queue_view.h"

namespace kino::frontend {
namespace {

void WakeAll(const std::vector<std::shared_ptr<Wakeable>>& watchers) {
  for (const std::shared_ptr<Wakeable>& watcher : watchers) watcher->Wake();
}

}  // namespace

void WatchHub::Collect(Entry& entry, Wakeables& out) {
  for (const std::weak_ptr<Wakeable>& weak : entry.watchers) {
    if (std::shared_ptr<Wakeable> watcher = weak.lock()) out.push_back(std::move(watcher));
  }
}

void WatchHub::DropIfUnused(const std::string& job_id) {
  const auto found = jobs_.find(job_id);
  if (found == jobs_.end()) return;
  if (found->second.watchers.empty() && !found->second.has_attempt) jobs_.erase(found);
}

void WatchHub::Subscribe(const std::string& job_id, const std::shared_ptr<Wakeable>& watcher) {
  absl::MutexLock lock(&mutex_);
  jobs_[job_id].watchers.push_back(watcher);
  ++watchers_;
}

void WatchHub::Unsubscribe(const std::string& job_id, const Wakeable* watcher) {
  absl::MutexLock lock(&mutex_);
  const auto found = jobs_.find(job_id);
  if (found == jobs_.end()) return;
  auto& watchers = found->second.watchers;
  const auto mine = std::find_if(watchers.begin(), watchers.end(),
                                 [&](const auto& weak) { return weak.lock().get() == watcher; });
  if (mine == watchers.end()) return;
  watchers.erase(mine);
  --watchers_;
  DropIfUnused(job_id);
}

int WatchHub::watchers() const {
  absl::MutexLock lock(&mutex_);
  return watchers_;
}

LiveView WatchHub::View(const std::string& job_id) const {
  absl::MutexLock lock(&mutex_);
  LiveView view;
  const auto found = jobs_.find(job_id);
  if (found != jobs_.end()) view = found->second.live;
  const Standing* const standing = queue_ == nullptr ? nullptr : queue_->Find(job_id);
  if (standing != nullptr) view.standing = *standing;
  view.is_going_away = is_going_away_;
  return view;
}

void WatchHub::OnState(const std::string& job_id, int64_t state_number) {
  Wakeables watchers;
  {
    absl::MutexLock lock(&mutex_);
    const auto found = jobs_.find(job_id);
    if (found == jobs_.end()) return;
    found->second.live.state_number = std::max(found->second.live.state_number, state_number);
    // In the queue again it has to be told anew, even where it stands as it stood before it ran.
    found->second.told.reset();
    Collect(found->second, watchers);
  }
  WakeAll(watchers);
}

void WatchHub::OnBytes(const std::string& job_id, int attempt, int64_t bytes) {
  Wakeables watchers;
  {
    absl::MutexLock lock(&mutex_);
    Entry& entry = jobs_[job_id];
    entry.has_attempt = true;
    if (entry.live.attempt != attempt) entry.live.progress.reset();
    entry.live.attempt = attempt;
    entry.live.bytes = bytes;
    Collect(entry, watchers);
  }
  WakeAll(watchers);
}

void WatchHub::OnProgress(const std::string& job_id, v1::Progress progress) {
  Wakeables watchers;
  {
    absl::MutexLock lock(&mutex_);
    const auto found = jobs_.find(job_id);
    if (found == jobs_.end()) return;
    LiveView& live = found->second.live;
    // Never falls within an attempt, whatever a worker says.
    if (live.progress != nullptr && live.progress->attempt() == progress.attempt() &&
        progress.fraction() < live.progress->fraction()) {
      progress.set_fraction(live.progress->fraction());
    }
    live.progress = std::make_shared<const v1::Progress>(std::move(progress));
    ++live.progress_version;
    Collect(found->second, watchers);
  }
  WakeAll(watchers);
}

void WatchHub::OnAttemptEnded(const std::string& job_id, int attempt) {
  Wakeables watchers;
  {
    absl::MutexLock lock(&mutex_);
    const auto found = jobs_.find(job_id);
    if (found == jobs_.end() || found->second.live.attempt != attempt) return;
    found->second.has_attempt = false;
    found->second.live.progress.reset();
    Collect(found->second, watchers);
    DropIfUnused(job_id);
  }
  WakeAll(watchers);
}

bool WatchHub::HasWaiting() const {
  absl::MutexLock lock(&mutex_);
  return std::any_of(jobs_.begin(), jobs_.end(), [](const auto& job) {
    return !job.second.has_attempt && !job.second.watchers.empty();
  });
}

void WatchHub::OnQueue(std::shared_ptr<const QueueSnapshot> queue) {
  Wakeables watchers;
  {
    absl::MutexLock lock(&mutex_);
    queue_ = std::move(queue);
    for (auto& [job_id, entry] : jobs_) {
      if (entry.has_attempt) continue;
      const Standing* const now = queue_->Find(job_id);
      if (now == nullptr ? !entry.told : entry.told && TellsTheSame(*entry.told, *now)) continue;
      entry.told = now == nullptr ? std::nullopt : std::optional<Standing>(*now);
      Collect(entry, watchers);
    }
  }
  WakeAll(watchers);
}

bool WatchHub::is_going_away() const {
  absl::MutexLock lock(&mutex_);
  return is_going_away_;
}

void WatchHub::GoAway() {
  Wakeables watchers;
  {
    absl::MutexLock lock(&mutex_);
    is_going_away_ = true;
    for (auto& [job_id, entry] : jobs_) Collect(entry, watchers);
  }
  WakeAll(watchers);
}

}  // namespace kino::frontend
