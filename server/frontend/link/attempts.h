// Running attempts, from their lease to the moment their end is durable: what their workers say is
// applied here, results are made durable, failures stored. An attempt is forgotten, its worker's
// last event acknowledged and its slot freed only once the store has taken its end; until then the
// store is asked again and again.
//
// Belongs to the link's strand and never blocks on a write: the store's answers are posted back.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "kino/v1/stored.pb.h"
#include "kino/v1/worker.pb.h"
#include "scheduler/clock.h"
#include "scheduler/jobs/job.h"
#include "scheduler/store/job_store.h"
#include "scheduler/workers/dispatcher.h"
#include "scheduler/workers/registry.h"
#include "server/config/control.h"
#include "server/frontend/artifacts/file_store.h"
#include "server/frontend/lifecycle/executor.h"
#include "server/frontend/link/peers.h"
#include "server/frontend/metrics/metrics.h"
#include "server/frontend/watch/hub.h"
#include "server/frontend/watch/queue_view.h"

namespace kino::frontend {

class Attempts {
 public:
  // All outlive this.
  struct Parts {
    scheduler::JobStore& store;
    FileStore& files;
    WatchHub& hub;
    Metrics& metrics;
    const scheduler::Clock& clock;
    Executor& io;  // fsync and SHA-256 of finished videos
    scheduler::WorkerRegistry& registry;
    Peers& peers;
    scheduler::RunHistory& history;
    scheduler::Dispatcher::Post post;
  };
  // What an attempt's end means to others. Called on the strand.
  struct Listener {
    // A slot is free, or a job is queued again.
    std::function<void()> on_end;
    // The worker does not react any more.
    std::function<void(const std::string& worker, scheduler::FailureCause cause)> kill;
    // An attempt's crash, hang or device error on a device is durable.
    std::function<void(const std::string& device, const scheduler::AttemptRef& ref)> on_crash;
    // The server itself is short of something, for Job.waiting_reason and in words: nothing should
    // be claimed for a while.
    std::function<void(const char* waiting_reason, const std::string& words)> on_shortage;
  };

  Attempts(Parts parts, Listener listener, absl::Duration cancel_grace)
      : parts_(std::move(parts)), listener_(std::move(listener)), cancel_grace_(cancel_grace) {}

  // At the start: attempts of workers that may come back. Reads.
  absl::Status Adopt(const std::vector<scheduler::RunningAttempt>& running);
  // At the start: attempts whose workers are known to be gone; they end with `cause`.
  void GiveUp(const std::vector<scheduler::RunningAttempt>& running, scheduler::FailureCause cause,
              const std::string& reason);

  // See Dispatcher::Start.
  void Start(const scheduler::Reservation& reservation, const scheduler::ClaimedAttempt& claimed,
             const absl::Status& assigned);

  // Fills in what of the worker's attempts goes on, and drops and ends the rest.
  void Resume(const Peer& peer, const scheduler::HelloResult& result, v1::HelloReply& reply);
  void AfterHello(const Peer& peer, const scheduler::HelloResult& result);

  // `peer` has just told how it is.
  void OnHeartbeat(const Peer& peer);
  void OnEvent(const Peer& peer, const v1::AttemptEvent& event);
  // `exited`: how the worker's process ended, where that is known.
  void Lose(const scheduler::LostAttempt& lost, const config::WorkerExited* exited = nullptr);
  // The job was found RUNNING with its cancellation asked for.
  void Cancel(const std::string& job_id);

  // To be called often: asks the store again, and ends what ignores its cancellation. `late`: by
  // how much this call comes late; nobody was heard meanwhile.
  void Tick(absl::Duration late);

  // Until when (monotonic) each worker is expected to be busy with what it holds.
  BusyTimes BusyUntil() const;
  int held() const { return static_cast<int>(live_.size()); }

 private:
  enum class Phase {
    kRunning,
    kSyncing,  // its result is complete and being made durable
    kEnding,   // its end is with the store, or waits to be
  };
  struct Live {
    scheduler::AttemptRef ref;
    std::string model;
    scheduler::JobWork work;
    std::string worker;
    std::string device;
    int64_t device_memory_bytes = 0;  // in use, as its worker last said
    // How long its run takes, and when it is expected to have ended (monotonic); infinite: not
    // known.
    absl::Duration run_time = absl::InfiniteDuration();
    absl::Duration expected_end = absl::InfiniteDuration();
    bool has_begun = false;
    std::unique_ptr<VideoWriter> writer;
    // Number of the last event applied; nothing is known of it after a restart of the frontend,
    // until the worker says.
    std::optional<int64_t> applied;
    std::optional<v1::Plan> plan;  // that runs
    v1::Progress progress;         // the last it told
    v1::Receipt receipt;
    absl::Duration cancel_deadline = absl::InfiniteDuration();
    // When cancelling was first asked for (monotonic); infinite: it was not.
    absl::Duration cancel_begun = absl::InfiniteDuration();

    Phase phase = Phase::kRunning;
    // Of kEnding: the result, or why there is none.
    std::optional<scheduler::Artifact> artifact;
    v1::RunStats stats;
    v1::AttemptDone done;
    scheduler::AttemptFailure failure;
    int64_t last_number = 0;  // of the worker's event to acknowledge; 0: none
    // When to sync the video, or ask the store, again; infinite: there is nothing to try again.
    absl::Duration again = absl::InfiniteDuration();
    bool was_refused = false;  // since the last success of either
  };

  absl::StatusOr<v1::StartAttempt> MakeStartAttempt(const scheduler::ClaimedAttempt& claimed) const;
  // An error ends the attempt with it.
  absl::Status Apply(const Peer& peer, Live& live, const v1::AttemptEvent& event);
  // What is known of such runs, for its hang limit.
  void TellUsualSteps(const Live& live);
  void ShowProgress(Live& live, const v1::Progress& progress);
  // Opaque, for AttemptFailure: where the run was when it died, and how.
  std::string Evidence(const Live& live, const scheduler::AttemptPulse& pulse,
                       const config::WorkerExited* exited) const;
  // The worker has stopped, or is not waited for any more: tells how long a cancellation took.
  void NoteCancelled(const Live& live);
  void BeginSync(Live& live, const v1::AttemptDone& done, int64_t number);
  void Sync(Live& live);
  // In a moment. `what`, for the log, once until it has worked.
  void TryAgain(Live& live, const char* what, const absl::Status& error);
  void OnSynced(const scheduler::AttemptRef& ref, const absl::StatusOr<FileStore::Digest>& digest);
  void End(Live& live, scheduler::AttemptFailure failure, int64_t last_number = 0);
  void Store(Live& live);
  void OnStored(const scheduler::AttemptRef& ref, const absl::StatusOr<scheduler::Job>& job);
  void ReportResult(const Live& live, const absl::StatusOr<scheduler::Job>& job);
  void AskToCancel(Live& live);
  Live* Find(const scheduler::AttemptRef& ref);

  const Parts parts_;
  const Listener listener_;
  const absl::Duration cancel_grace_;
  std::map<std::string, Live> live_;  // by job
};

}  // namespace kino::frontend
