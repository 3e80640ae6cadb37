// Carries attempts from their lease to their end: the middle of the frontend. What is durable is
// the store's, who holds what the registry's, who gets which job the dispatcher's
// (scheduler/workers); here they meet the workers' streams, the attempts' files and the watchers.
//
// Every public method may be called from any thread and returns at once unless it says otherwise;
// the work is done on one thread (a strand), which may block on the store. Fields below the strand
// are touched by it alone.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "kino/v1/worker.pb.h"
#include "scheduler/clock.h"
#include "scheduler/jobs/job.h"
#include "scheduler/store/job_store.h"
#include "scheduler/workers/dispatcher.h"
#include "scheduler/workers/registry.h"
#include "server/config/config.h"
#include "server/config/control.h"
#include "server/frontend/artifacts/file_store.h"
#include "server/frontend/lifecycle/executor.h"
#include "server/frontend/metrics/metrics.h"
#include "server/frontend/profiles/profiles.h"
#include "server/frontend/watch/hub.h"

namespace kino::frontend {

class Session;

struct WorkerLinkOptions {
  std::vector<std::string> workers;  // names of the configured ones
  config::LinkConfig link;
  config::LimitsConfig limits;
  config::RetentionConfig retention;
  std::string link_secret;
};

// All outlive the link.
struct WorkerLinkParts {
  scheduler::JobStore& store;
  FileStore& files;
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
  using KillWorker = std::function<absl::Status(const std::string& worker, int pid)>;
  using CommandDone = absl::AnyInvocable<void(absl::Status)>;

  WorkerLink(WorkerLinkOptions options, WorkerLinkParts parts);
  // Stops.
  ~WorkerLink();

  // Takes over the attempts that the store says are running. Blocks. REQUIRES: called once, before
  // any other call.
  absl::Status Start();
  // How a stuck worker is killed. Without it (no supervisor) its stream is closed and its attempts
  // are given up.
  void SetKillWorker(KillWorker kill);

  // From workers' streams and from kinod.
  void OnMessage(std::shared_ptr<Session> session, v1::WorkerMessage message);
  void OnStreamEnded(std::shared_ptr<Session> session);
  void OnControl(const config::ControlMessage& message);

  // `job` was found RUNNING with its cancellation asked for.
  void CancelRunning(const std::string& job_id);

  // `done` runs on the strand. UNAVAILABLE: no worker is up. FAILED_PRECONDITION and others: as the
  // worker says.
  void LoadModel(const std::string& model, CommandDone done);
  // On every worker that is up.
  void UnloadModel(const std::string& model, CommandDone done);

  // See Profiles::Ask.
  void AskProfile(const std::string& kind, v1::ProfileQuery query, Profiles::Done done);

  std::vector<scheduler::WorkerSnapshot> Workers() const { return registry_.Snapshot(); }
  // Configured workers that are not connected, but were, or might have been, less than
  // LinkConfig::reattach_grace ago: they may still come.
  std::set<std::string> Absent() const;
  // Of every worker that has connected since the start, by name.
  std::vector<WorkerMemory> Memories() const;

  // No attempt is started any more, and model commands under way fail with UNAVAILABLE.
  void StopClaiming();
  // Blocks until no worker holds an attempt, at most until `timeout` has passed.
  void WaitForAttempts(absl::Duration timeout);
  // Closes the workers' streams (they keep their attempts and come back) and ends the strand.
  // Blocks. The store is to be destroyed after this and before the link.
  void Stop();

 private:
  // A worker that is connected.
  struct Peer {
    std::shared_ptr<Session> stream;
    scheduler::SessionId id = 0;
    std::string name;
    std::string device;
    int64_t device_memory_bytes = 0;
    int pid = 0;
  };
  // A running attempt; one per job.
  struct Live {
    scheduler::AttemptRef ref;
    std::string model;
    std::string worker;
    std::unique_ptr<VideoWriter> writer;
    // Number of the last event applied; nothing is known of it after a restart of the frontend,
    // until the worker says.
    std::optional<int64_t> applied;
    std::optional<v1::Plan> plan;  // that runs
    bool is_finishing = false;     // its result is complete and being made durable
    absl::Duration cancel_deadline = absl::InfiniteDuration();
  };
  struct Ending {
    scheduler::AttemptRef ref;
    scheduler::AttemptFailure failure;
  };
  struct Commit {
    scheduler::AttemptRef ref;
    scheduler::Artifact artifact;
    std::string stats;
    v1::AttemptDone done;
    int64_t number = 0;
  };
  struct Command {
    std::string worker;
    CommandDone done;
  };
  struct ProfileQuestion {
    std::string worker;
    Profiles::Done done;
  };

  // worker_link.cc
  void Tick();
  void StartAttempt(scheduler::SessionId session, const scheduler::ClaimedAttempt& claimed);
  absl::StatusOr<v1::StartAttempt> MakeStartAttempt(const scheduler::ClaimedAttempt& claimed);
  void OnChanges(const std::vector<scheduler::Change>& changes);
  void FailCommands();
  void Housekeeping();
  void RunPurge(absl::Time now);
  void SendCommand(const Peer& peer, const std::string& model, bool is_load, CommandDone done);

  // worker_events.cc
  void Handle(const std::shared_ptr<Session>& session, const v1::WorkerMessage& message);
  absl::Status HandleHello(const std::shared_ptr<Session>& session, const v1::WorkerHello& hello);
  void ReplyToHello(const Peer& peer, const scheduler::HelloResult& result);
  void HandleHeartbeat(const Peer& peer, const v1::WorkerHeartbeat& heartbeat);
  void HandleEvent(const Peer& peer, const v1::AttemptEvent& event);
  // Applies a numbered event; an error ends the attempt with it.
  absl::Status ApplyEvent(const Peer& peer, Live& live, const v1::AttemptEvent& event);
  void HandleProgress(const Live& live, const v1::Progress& progress);
  void HandleModelResult(const v1::ModelCommandResult& result);
  void HandleProfile(const v1::ProfileAnswer& answer);
  void Ack(const Peer& peer, const scheduler::AttemptRef& ref, int64_t number, int64_t offset);
  void Drop(const Peer& peer, const scheduler::AttemptRef& ref);

  // attempt_ends.cc
  void BeginCommit(Live& live, const v1::AttemptDone& done, int64_t number);
  void FinishCommit(const scheduler::AttemptRef& ref, const v1::AttemptDone& done, int64_t number,
                    const absl::StatusOr<FileStore::Digest>& digest);
  void TryCommit(Commit commit);
  void EndWithoutResult(const scheduler::AttemptRef& ref, scheduler::AttemptFailure failure);
  void TryEnding(Ending ending);
  // Forgets a running attempt and frees its slot. `keep_file`: its video has become the artifact.
  void Forget(const scheduler::AttemptRef& ref, bool keep_file);
  void HandleLost(const scheduler::LostAttempt& lost);
  void HandleExit(const config::WorkerExited& exited);
  void KillStuck(const std::string& worker, scheduler::FailureCause cause);
  void CheckCancelDeadlines();
  void AskToCancel(Live& live);
  // Gives up those who did not come.
  void CheckAbsent();

  Peer* FindPeer(const std::string& worker);
  Peer* FindPeer(const Session* session);
  Peer* FindPeer(scheduler::SessionId session);
  Live* FindLive(const scheduler::AttemptRef& ref);

  const WorkerLinkOptions options_;
  const WorkerLinkParts parts_;
  scheduler::WorkerRegistry registry_;
  std::atomic<bool> tick_posted_{false};
  std::atomic<bool> queue_moved_{false};
  int64_t change_listener_ = 0;

  mutable absl::Mutex mutex_;
  KillWorker kill_ ABSL_GUARDED_BY(mutex_);
  int attempts_held_ ABSL_GUARDED_BY(mutex_) = 0;
  std::map<std::string, WorkerMemory> memories_ ABSL_GUARDED_BY(mutex_);  // by worker
  // Workers that may still come, since when (monotonic) they are awaited.
  std::map<std::string, absl::Duration> absent_ ABSL_GUARDED_BY(mutex_);

  // The strand's own.
  std::map<const Session*, Peer> peers_;
  std::map<std::string, Live> live_;  // by job
  std::map<int64_t, Command> commands_;
  std::map<int64_t, ProfileQuestion> questions_;
  int64_t last_command_ = 0;
  std::map<std::string, int> pids_;                                       // by worker, from kinod
  std::map<std::string, std::pair<int, scheduler::FailureCause>> kills_;  // by worker: pid, why
  std::vector<Ending> pending_endings_;  // the store could not take them yet
  std::vector<Commit> pending_commits_;
  bool is_machine_stopping_ = false;
  bool is_shutting_down_ = false;
  bool is_stopped_ = false;
  absl::Duration next_housekeeping_;
  absl::Duration next_purge_;
  absl::Duration next_timer_check_;

  // Declared last: their threads use everything above.
  Executor strand_;
  scheduler::Dispatcher dispatcher_;
  std::unique_ptr<Ticker> ticker_;
};

// The opaque statistics of a job's row: stages and plan of the last attempt.
std::string EncodeStats(const google::protobuf::RepeatedPtrField<v1::StageStats>& stages,
                        const v1::Plan* plan);

}  // namespace kino::frontend
