#include "server/frontend/watch/queue_view.h"

#include <algorithm>
#include <utility>

#include "server/frontend/watch/hub.h"

namespace kino::frontend {
namespace {

// A walk that took longer is followed by a pause of ten times its length.
constexpr absl::Duration kShortWalk = absl::Milliseconds(5);
constexpr int kPauseFactor = 10;

}  // namespace

std::vector<QueueWorker> QueueWorkers(const std::vector<scheduler::WorkerSnapshot>& workers) {
  std::vector<QueueWorker> out;
  for (const scheduler::WorkerSnapshot& worker : workers) {
    if (worker.session == 0 || worker.is_draining) continue;
    QueueWorker& added = out.emplace_back();
    for (const scheduler::WorkerModel& model : worker.models) added.models.push_back(model.name);
    std::sort(added.models.begin(), added.models.end());
    // Slots that are only reserved come and go while a worker looks for a job.
    added.is_free = static_cast<int>(worker.held.size()) < worker.max_attempts;
  }
  return out;
}

QueueSnapshot::QueueSnapshot(const QueueFacts& facts) : held_because_(facts.held_because) {
  for (const QueueWorker& worker : facts.workers) {
    for (const std::string& model : worker.models) {
      Model& served = models_[model];
      served.is_served = true;
      served.is_free = served.is_free || worker.is_free;
      served.rivals.insert(worker.models.begin(), worker.models.end());
    }
  }
  for (const scheduler::QueuedJob& entry : facts.queue) models_[entry.model];
  // The other way round: whom a job of a model stands in front of.
  std::map<std::string, std::vector<Model*>> behind;
  for (auto& [name, model] : models_) {
    model.rivals.insert(name);
    for (const std::string& rival : model.rivals) behind[rival].push_back(&model);
  }
  standings_.reserve(facts.queue.size());
  for (const scheduler::QueuedJob& entry : facts.queue) {
    Standing standing = Judge(models_[entry.model], models_[entry.model].ahead);
    for (Model* const model : behind[entry.model]) {
      ++model->ahead;
      ++model->queued[entry.priority];
    }
    const bool is_startable = standing.reason != kWaitsForWorker && held_because_.empty();
    if (is_startable && entry.retry_not_before > facts.now) {
      standing.reason = kWaitsForBackOff;
      standing.until = entry.retry_not_before;
      next_change_ = std::min(next_change_, entry.retry_not_before);
    } else if (is_startable && facts.waits_for_memory && facts.waits_for_memory(entry.id)) {
      standing.reason = kWaitsForMemory;
    }
    standings_.emplace(entry.id, std::move(standing));
  }
}

Standing QueueSnapshot::Judge(const Model& model, int64_t position) const {
  Standing standing{.position = position, .reason = "", .until = absl::InfiniteFuture()};
  // What an operator has to mend comes before what only takes time.
  if (!model.is_served) {
    standing.reason = kWaitsForWorker;
  } else if (!held_because_.empty()) {
    standing.reason = held_because_;
  } else if (position > 0) {
    standing.reason = kWaitsForOthers;
  } else if (!model.is_free) {
    standing.reason = kWaitsForSlot;
  }
  return standing;
}

const Standing* QueueSnapshot::Find(const std::string& job_id) const {
  const auto found = standings_.find(job_id);
  return found == standings_.end() ? nullptr : &found->second;
}

Standing QueueSnapshot::OfNewcomer(const std::string& model, scheduler::Priority priority) const {
  const auto found = models_.find(model);
  if (found == models_.end()) return Judge(Model(), 0);
  int64_t ahead = 0;
  for (const auto& [queued_priority, jobs] : found->second.queued) {
    if (queued_priority >= priority) ahead += jobs;
  }
  return Judge(found->second, ahead);
}

QueueView::QueueView(QueueSources sources, WatchHub& hub)
    : sources_(std::move(sources)), hub_(hub), latest_(std::make_shared<const QueueSnapshot>()) {
  listener_ = sources_.store.AddChangeListener(
      [this](const std::vector<scheduler::Change>& changes) { moves_ += !changes.empty(); });
}

QueueView::~QueueView() { Stop(); }

void QueueView::Stop() {
  if (listener_ != 0) sources_.store.RemoveChangeListener(std::exchange(listener_, 0));
}

std::shared_ptr<const QueueSnapshot> QueueView::Latest() const {
  absl::MutexLock lock(&mutex_);
  return latest_;
}

Standing QueueView::Find(const scheduler::Job& job) {
  Refresh();
  const std::shared_ptr<const QueueSnapshot> snapshot = Latest();
  const Standing* const standing = snapshot->Find(job.id);
  return standing != nullptr ? *standing : snapshot->OfNewcomer(job.model, job.priority);
}

void QueueView::RefreshForWatchers() {
  if (hub_.HasWaiting()) Refresh();
}

void QueueView::Refresh() {
  absl::MutexLock walk_lock(&walk_mutex_);
  // What moves from here on is the next walk's.
  const int64_t moves = moves_;
  QueueFacts facts{.queue = {},
                   .workers = QueueWorkers(sources_.workers()),
                   .held_because = sources_.held_because ? sources_.held_because() : "",
                   .waits_for_memory = sources_.waits_for_memory,
                   .now = sources_.clock.Now()};
  const bool has_changed = moves != walked_moves_ || facts.workers != walked_workers_ ||
                           facts.held_because != walked_held_ ||
                           facts.now >= Latest()->next_change();
  const absl::Duration begun = sources_.clock.Monotonic();
  if (!has_changed || begun < next_walk_) return;
  absl::StatusOr<std::vector<scheduler::QueuedJob>> queue = sources_.store.Queue();
  // A store that cannot be read now is read at the next occasion.
  if (!queue.ok()) return;
  facts.queue = *std::move(queue);
  const auto snapshot = std::make_shared<const QueueSnapshot>(facts);
  ++walks_;
  walked_moves_ = moves;
  walked_workers_ = std::move(facts.workers);
  walked_held_ = std::move(facts.held_because);
  const absl::Duration took = sources_.clock.Monotonic() - begun;
  next_walk_ = begun + took + (took > kShortWalk ? kPauseFactor * took : absl::ZeroDuration());
  {
    absl::MutexLock lock(&mutex_);
    latest_ = snapshot;
  }
  hub_.OnQueue(snapshot);
}

}  // namespace kino::frontend
