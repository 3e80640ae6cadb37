// The middle of the frontend, where queue, workers, files and watchers meet. What is durable is the
// store's, who holds what the registry's, who gets which job the dispatcher's (scheduler/workers);
// running attempts are in `attempts`, workers' processes in `worker_exits`, what is asked of
// workers beside attempts in `commands`, what the clock brings in `upkeep`.
//
// Every public method may be called from any thread and returns at once unless it says otherwise.
// The work is done on one thread, the strand: all of these parts belong to it, and none of it waits
// for a write. What other threads may look at is published by it.
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
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "kino/v1/worker.pb.h"
#include "scheduler/clock.h"
#include "scheduler/queue/job_queue.h"
#include "scheduler/store/job_store.h"
#include "scheduler/workers/dispatcher.h"
#include "scheduler/workers/registry.h"
#include "server/config/config.h"
#include "server/config/control.h"
#include "server/frontend/artifacts/disk_budget.h"
#include "server/frontend/artifacts/file_store.h"
#include "server/frontend/lifecycle/executor.h"
#include "server/frontend/lifecycle/last_server.h"
#include "server/frontend/link/attempts.h"
#include "server/frontend/link/commands.h"
#include "server/frontend/link/devices.h"
#include "server/frontend/link/peers.h"
#include "server/frontend/link/upkeep.h"
#include "server/frontend/link/worker_exits.h"
#include "server/frontend/metrics/metrics.h"
#include "server/frontend/profiles/profiles.h"
#include "server/frontend/watch/hub.h"

namespace kino::frontend {

struct WorkerLinkOptions {
  std::vector<std::string> workers;  // names of the configured ones
  std::set<std::string> models;      // and of the models
  config::LinkConfig link;
  config::LimitsConfig limits;
  config::RetryConfig retry;
  config::RetentionConfig retention;
  std::string link_secret;
  std::string devices_file;  // which are out
};

// All outlive the link.
struct WorkerLinkParts {
  scheduler::JobStore& store;
  FileStore& files;
  DiskBudget& budget;
  scheduler::RunHistory& history;
  WatchHub& hub;
  Metrics& metrics;
  const scheduler::Clock& clock;
  Executor& io;  // fsync and SHA-256 of finished videos
  // Whether a job fits a worker.
  scheduler::Dispatcher::Judge judge;
};

// What a worker said it has, in bytes; 0: it did not say.
struct WorkerMemory {
  std::string worker;
  std::string device;
  int64_t device_bytes = 0;
  int64_t host_bytes = 0;
};

class WorkerLink {
 public:
  WorkerLink(WorkerLinkOptions options, WorkerLinkParts parts);
  // Stops.
  ~WorkerLink();

  // Takes over the queue and the attempts that the store says are running. `taken_over` is called,
  // again until it gives OK, once those that run no more have ended in the store; before, nothing
  // is claimed. Blocks. REQUIRES: called once, before any other call.
  absl::Status Start(LastStop last_stop, std::function<absl::Status()> taken_over);
  void SetKillWorker(WorkerExits::KillWorker kill) { exits_.SetKillWorker(std::move(kill)); }

  // From workers' streams and from kinod.
  void OnMessage(std::shared_ptr<Session> session, v1::WorkerMessage message);
  void OnStreamEnded(std::shared_ptr<Session> session);
  void OnControl(const config::ControlMessage& message);

  // `job` was found RUNNING with its cancellation asked for.
  void CancelRunning(const std::string& job_id);

  // `done` runs on the strand. See Commands.
  void LoadModel(const std::string& model, CommandDone done);
  void UnloadModel(const std::string& model, CommandDone done);
  void AskProfile(const std::string& kind, v1::ProfileQuery query, Profiles::Done done);

  // The workers as they are now.
  std::vector<scheduler::WorkerSnapshot> Workers() const;
  // Configured workers that are not connected, but were, or might have been, less than
  // LinkConfig::reattach_grace ago: they may still come.
  std::set<std::string> Absent() const;
  // Of every worker that has connected since the start, by name.
  std::vector<WorkerMemory> Memories() const;
  // Why no job is started, for Job.waiting_reason; empty: jobs are.
  std::string HeldBecause() const;
  // Whose jobs are not started, and why, for Job.waiting_reason.
  std::map<std::string, std::string> HeldTenants() const;
  // How long each worker is expected to be busy yet.
  BusyTimes Busy() const;

  // Whether a queued job was held against a worker and did not fit: it waits for another one.
  bool WaitsForMemory(const std::string& job_id) const;

  // No attempt is started any more, and model commands under way fail with UNAVAILABLE.
  void StopClaiming();
  // Blocks until no worker holds an attempt, at most until `timeout` has passed.
  void WaitForAttempts(absl::Duration timeout);
  // Closes the workers' streams (they keep their attempts and come back) and ends the strand.
  // Blocks. The store is to be destroyed after this and before the link.
  void Stop();

 private:
  struct Published {
    std::vector<scheduler::WorkerSnapshot> workers;
    std::set<std::string> unfit;  // jobs that some worker is not to get
    int64_t version = -1;         // of the registry
    std::string hold;             // for Job.waiting_reason
    std::map<std::string, std::string> held_tenants;
    BusyTimes busy_until;  // monotonic
    int attempts_held = 0;
    std::map<std::string, WorkerMemory> memories;  // by worker
    // Workers that may still come, since when (monotonic) they are awaited.
    std::map<std::string, absl::Duration> absent;
  };

  // On the strand.
  void Tick();
  // Once nothing is held any more that the last server left running.
  void TakeOver();
  void Publish();
  void Handle(const std::shared_ptr<Session>& session, const v1::WorkerMessage& message);
  absl::Status HandleHello(const std::shared_ptr<Session>& session, const v1::WorkerHello& hello);
  void HandleHeartbeat(Peer& peer, const v1::WorkerHeartbeat& heartbeat);
  void HandleStreamEnd(const Session* session);
  void HandleChanges(const std::vector<scheduler::Change>& changes);
  void CheckAbsent();

  const WorkerLinkOptions options_;
  const WorkerLinkParts parts_;
  std::atomic<bool> tick_posted_{false};
  int64_t change_listener_ = 0;
  bool is_stopped_ = false;

  mutable absl::Mutex mutex_;
  Published published_ ABSL_GUARDED_BY(mutex_);

  // The strand's own.
  std::function<absl::Status()> taken_over_;  // null: it has been called with success
  absl::Status take_over_error_;              // that was told last
  scheduler::WorkerRegistry registry_;
  scheduler::JobQueue queue_;
  Peers peers_;

  // Its thread uses everything above and below: it is stopped first.
  Executor strand_;
  const scheduler::Dispatcher::Post post_;
  scheduler::Dispatcher dispatcher_;
  Commands commands_;
  Attempts attempts_;
  WorkerExits exits_;
  Devices devices_;
  Upkeep upkeep_;
  std::unique_ptr<Ticker> ticker_;
};

}  // namespace kino::frontend
