// Where each queued job stands: how many are ahead of it and what it waits for. One computation
// for all who ask, done again only when the queue, the workers, what holds the claims or what is
// known of a worker's end has changed; the watchers of jobs that stand elsewhere than before are
// woken, and no others.
//
// Walking a queue of 100,000 takes a fraction of a second. After a walk that took long the next one
// waits ten times as long, so that the view never takes more than a tenth of one core, and a
// position may be some seconds old then. A short queue is walked whenever it has moved.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "scheduler/clock.h"
#include "scheduler/jobs/job.h"
#include "scheduler/queue/run_history.h"
#include "scheduler/store/job_store.h"
#include "scheduler/workers/registry.h"
#include "server/frontend/watch/standing.h"

namespace kino::frontend {

class WatchHub;

// What holds a job back, as Job.waiting_reason tells it; video.proto says what each means.
inline constexpr char kWaitsForWorker[] = "NO_WORKER";
inline constexpr char kWaitsForDevice[] = "DEVICE_OUT";
inline constexpr char kWaitsForDisk[] = "DISK_FULL";
inline constexpr char kWaitsForTenantsDisk[] = "TENANT_DISK_FULL";
inline constexpr char kWaitsForTenantsJobs[] = "TENANT_BUSY";
inline constexpr char kWaitsForServer[] = "SERVER_SHORT";
inline constexpr char kWaitsForBackOff[] = "BACK_OFF";
inline constexpr char kWaitsForMemory[] = "NO_MEMORY";
inline constexpr char kWaitsForOthers[] = "AHEAD";
inline constexpr char kWaitsForSlot[] = "WORKERS_BUSY";

// A worker as the queue sees it.
struct QueueWorker {
  std::string name{};
  std::vector<std::string> models{};  // sorted
  std::set<std::string> loaded{};     // of these
  bool is_free = false;               // it could take one more attempt
  bool is_out = false;                // its device is not trusted: it takes none
  bool operator==(const QueueWorker&) const = default;
};
// Those that take jobs, or will once their device is trusted: connected and not draining.
std::vector<QueueWorker> QueueWorkers(const std::vector<scheduler::WorkerSnapshot>& workers);

// By worker: until what it holds is expected to have ended. Infinite: not known. Who is not among
// them is idle.
using BusyTimes = std::map<std::string, absl::Duration>;

// Everything a standing is computed from.
struct QueueFacts {
  std::vector<scheduler::QueuedJob> queue{};  // in the order of the policy
  std::vector<QueueWorker> workers{};
  // Why no job of any model is started now, such as kWaitsForDisk; empty: nothing holds them.
  std::string held_because{};
  // None of these tenants' jobs is started now, and why, such as kWaitsForTenantsDisk.
  std::map<std::string, std::string> held_tenants{};
  // Of a job: every worker that serves it has too little memory for it just now.
  std::function<bool(const std::string& job_id)> waits_for_memory{};
  BusyTimes busy{};
  const scheduler::RunHistory* history = nullptr;  // null: nothing is known of any run
  absl::Time now{};
};

// The whole queue at one moment. Immutable.
class QueueSnapshot {
 public:
  QueueSnapshot() = default;
  explicit QueueSnapshot(const QueueFacts& facts);

  // Null: the job was not in the queue.
  const Standing* Find(const std::string& job_id) const;
  // Of a job that came after the snapshot: behind all of its class.
  Standing OfNewcomer(const std::string& model, scheduler::Priority priority) const;
  // When a standing changes though nothing else does: the next back-off's end.
  absl::Time next_change() const { return next_change_; }
  // Whether it says of any job when it will start: what that goes by changes all the time.
  bool has_estimates() const { return has_estimates_; }

 private:
  struct Model {
    std::set<std::string> rivals;  // models that its workers serve, itself included
    std::map<scheduler::Priority, int64_t> queued;  // jobs of it and its rivals
    int64_t ahead = 0;                              // those that the walk has passed
    bool is_served = false;
    bool is_out = false;          // a worker whose device is out serves it
    bool is_free = false;         // one of its workers is
    std::vector<size_t> servers;  // its workers
  };
  // A worker, as the walk fills it with the jobs that it will run.
  struct Line {
    absl::Time free_at;  // InfiniteFuture: not known
    std::set<std::string> loaded;
  };

  // Puts the job behind what its workers will run before it.
  void Foresee(const QueueFacts& facts, const scheduler::QueuedJob& job, const Model& model,
               std::vector<Line>& lines, Standing& standing);

  Standing Judge(const Model& model, int64_t position) const;

  absl::flat_hash_map<std::string, Standing> standings_;
  std::map<std::string, Model> models_;
  std::string held_because_;
  absl::Time as_of_;
  bool has_estimates_ = false;
  absl::Time next_change_ = absl::InfiniteFuture();
};

// What the view looks at. All may be called from any thread and return at once, but for the store.
struct QueueSources {
  scheduler::JobStore& store;
  const scheduler::Clock& clock;
  std::function<std::vector<scheduler::WorkerSnapshot>()> workers;
  // See QueueFacts; may be null.
  std::function<std::string()> held_because{};
  std::function<std::map<std::string, std::string>()> held_tenants{};
  std::function<bool(const std::string& job_id)> waits_for_memory{};
  std::function<BusyTimes()> busy{};
  const scheduler::RunHistory* history = nullptr;
};

// Thread-safe.
class QueueView {
 public:
  // `hub` is told of each new snapshot; all outlive the view.
  QueueView(QueueSources sources, WatchHub& hub);
  // Stops.
  ~QueueView();
  QueueView(const QueueView&) = delete;
  QueueView& operator=(const QueueView&) = delete;

  // Where a job stands that was QUEUED a moment ago. Blocks on the store for a walk along the
  // queue, where it has moved and may be walked again.
  Standing Find(const scheduler::Job& job);
  // A walk, if there is reason for one. Blocks on the store.
  void Refresh();
  // The same where queued jobs are watched: to be called every now and then, such as twice a
  // second.
  void RefreshForWatchers();
  // Hears nothing of the store any more. Blocks. To be called before the store goes.
  void Stop();

  // Walks along the queue so far; for tests and metrics.
  int64_t walks() const { return walks_; }

 private:
  std::shared_ptr<const QueueSnapshot> Latest() const;

  const QueueSources sources_;
  WatchHub& hub_;
  std::atomic<int64_t> moves_{1};  // of the queue
  std::atomic<int64_t> walks_{0};
  int64_t listener_ = 0;

  // Held during a walk: who comes meanwhile shares it.
  absl::Mutex walk_mutex_;
  int64_t walked_moves_ ABSL_GUARDED_BY(walk_mutex_) = 0;
  std::vector<QueueWorker> walked_workers_ ABSL_GUARDED_BY(walk_mutex_);
  std::string walked_held_ ABSL_GUARDED_BY(walk_mutex_);
  std::map<std::string, std::string> walked_held_tenants_ ABSL_GUARDED_BY(walk_mutex_);
  std::set<std::string> walked_unforeseen_ ABSL_GUARDED_BY(walk_mutex_);  // workers
  absl::Duration next_estimate_ ABSL_GUARDED_BY(walk_mutex_) = absl::InfiniteDuration();
  absl::Duration next_walk_ ABSL_GUARDED_BY(walk_mutex_) = -absl::InfiniteDuration();

  mutable absl::Mutex mutex_;
  std::shared_ptr<const QueueSnapshot> latest_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace kino::frontend
