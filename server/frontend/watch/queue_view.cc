#include "server/frontend/watch/queue_view.h"

#include <algorithm>
#include <utility>

#include "server/frontend/watch/hub.h"

namespace kino::frontend {
namespace {

// A walk that took longer is followed by a pause of ten times its length.
constexpr absl::Duration kShortWalk = absl::Milliseconds(5);
constexpr int kPauseFactor = 10;
// Estimates are made anew so often though the queue has not moved.
constexpr absl::Duration kEstimateInterval = absl::Seconds(5);

// Whose end nobody knows: until one of them tells it there is no estimate behind it to be made
// anew.
std::set<std::string> Unforeseen(const BusyTimes& busy) {
  std::set<std::string> workers;
  for (const auto& [worker, left] : busy) {
    if (left == absl::InfiniteDuration()) workers.insert(worker);
  }
  return workers;
}

}  // namespace

std::vector<QueueWorker> QueueWorkers(const std::vector<scheduler::WorkerSnapshot>& workers) {
  std::vector<QueueWorker> out;
  for (const scheduler::WorkerSnapshot& worker : workers) {
    if (worker.session == 0 || worker.is_draining) continue;
    QueueWorker& added = out.emplace_back();
    added.name = worker.name;
    for (const scheduler::WorkerModel& model : worker.models) {
      added.models.push_back(model.name);
      if (model.loaded) added.loaded.insert(model.name);
    }
    std::sort(added.models.begin(), added.models.end());
    // Slots that are only reserved come and go while a worker looks for a job.
    added.is_free = static_cast<int>(worker.held.size()) < worker.max_attempts;
    added.is_out = worker.is_out;
  }
  return out;
}

QueueSnapshot::QueueSnapshot(const QueueFacts& facts)
    : held_because_(facts.held_because), as_of_(facts.now) {
  std::vector<Line> lines;
  for (const QueueWorker& worker : facts.workers) {
    if (worker.is_out) {
      for (const std::string& model : worker.models) models_[model].is_out = true;
      continue;
    }
    const auto busy = facts.busy.find(worker.name);
    lines.push_back({.free_at = busy == facts.busy.end() ? facts.now : facts.now + busy->second,
                     .loaded = worker.loaded});
    for (const std::string& model : worker.models) {
      Model& served = models_[model];
      served.servers.push_back(lines.size() - 1);
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
    const Model& own = models_[entry.model];
    Standing standing = Judge(own, own.ahead);
    for (Model* const model : behind[entry.model]) {
      ++model->ahead;
      ++model->queued[entry.priority];
    }
    const bool is_startable = own.is_served && held_because_.empty();
    const bool is_pausing = entry.retry_not_before > facts.now;
    const auto tenant = facts.held_tenants.find(entry.tenant);
    if (is_startable && tenant != facts.held_tenants.end()) {
      standing.reason = tenant->second;
    } else if (is_startable && !is_pausing && facts.waits_for_memory &&
               facts.waits_for_memory(entry.id)) {
      standing.reason = kWaitsForMemory;
    } else if (is_startable) {
      if (is_pausing) {
        standing.reason = kWaitsForBackOff;
        standing.until = entry.retry_not_before;
        next_change_ = std::min(next_change_, entry.retry_not_before);
      }
      Foresee(facts, entry, own, lines, standing);
    }
    standings_.emplace(entry.id, std::move(standing));
  }
}

void QueueSnapshot::Foresee(const QueueFacts& facts, const scheduler::QueuedJob& job,
                            const Model& model, std::vector<Line>& lines, Standing& standing) {
  Line& line =
      lines[*std::min_element(model.servers.begin(), model.servers.end(), [&](size_t a, size_t b) {
        return lines[a].free_at < lines[b].free_at;
      })];
  if (line.free_at == absl::InfiniteFuture() || facts.history == nullptr) return;
  standing.start = std::max({line.free_at, job.retry_not_before, facts.now});
  has_estimates_ = true;
  const std::optional<absl::Duration> run = facts.history->RunTime(job.model, job.work);
  if (run) {
    const absl::Duration load = line.loaded.insert(job.model).second
                                    ? facts.history->LoadTime(job.model)
                                    : absl::ZeroDuration();
    standing.end = standing.start + load + *run;
  }
  // A job that pauses lets others pass.
  if (standing.until == absl::InfiniteFuture()) line.free_at = standing.end;
}

Standing QueueSnapshot::Judge(const Model& model, int64_t position) const {
  Standing standing{.position = position, .as_of = as_of_};
  // What an operator has to mend comes before what only takes time.
  if (!model.is_served) {
    standing.reason = model.is_out ? kWaitsForDevice : kWaitsForWorker;
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
                   .held_tenants = sources_.held_tenants ? sources_.held_tenants()
                                                         : std::map<std::string, std::string>(),
                   .waits_for_memory = sources_.waits_for_memory,
                   .busy = sources_.busy ? sources_.busy() : BusyTimes(),
                   .history = sources_.history,
                   .now = sources_.clock.Now()};
  std::set<std::string> unforeseen = Unforeseen(facts.busy);
  const absl::Duration begun = sources_.clock.Monotonic();
  const bool has_changed = moves != walked_moves_ || facts.workers != walked_workers_ ||
                           facts.held_because != walked_held_ ||
                           facts.held_tenants != walked_held_tenants_ ||
                           unforeseen != walked_unforeseen_ ||
                           facts.now >= Latest()->next_change() || begun >= next_estimate_;
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
  walked_held_tenants_ = std::move(facts.held_tenants);
  walked_unforeseen_ = std::move(unforeseen);
  next_estimate_ = snapshot->has_estimates() ? begun + kEstimateInterval : absl::InfiniteDuration();
  const absl::Duration took = sources_.clock.Monotonic() - begun;
  next_walk_ = begun + took + (took > kShortWalk ? kPauseFactor * took : absl::ZeroDuration());
  {
    absl::MutexLock lock(&mutex_);
    latest_ = snapshot;
  }
  hub_.OnQueue(snapshot);
}

}  // namespace kino::frontend
