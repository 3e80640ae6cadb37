// Who can work and who holds what: connected workers, their slots, and a lease on each attempt they
// hold. All deadlines are monotonic. The registry decides nothing durable: it hands back lost
// attempts, and the caller ends them in the store.
//
// A connection is a session: a new hello under the same name replaces the old session, whose calls
// are then refused. When a session ends without notice of the process's death, its attempts wait
// `reattach_grace` for it to come back; the same holds for attempts that a restarted frontend finds
// RUNNING in the store (Adopt). Thread-safe; no call blocks, calls back or does I/O.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "scheduler/clock.h"
#include "scheduler/jobs/job.h"
#include "scheduler/queue/policy.h"
#include "scheduler/store/job_store.h"

namespace kino::scheduler {

using SessionId = int64_t;  // never 0

// A worker that so many waiting jobs do not fit gets nothing more until one of them ends: what it
// is not to get is looked through at each claim, and to forget one would offer it again at once.
inline constexpr size_t kMaxUnfitJobs = 1000;

struct LeaseOptions {
  // Without a heartbeat for so long a connected worker is lost.
  absl::Duration lease = absl::Seconds(10);
  // Without a connection for so long the attempts of a worker that may live are lost.
  absl::Duration reattach_grace = absl::Seconds(15);
  // Without progress for so long while it holds attempts a worker hangs.
  absl::Duration stall_limit = absl::Minutes(10);
  // The worker itself stops at run_timeout; so much later the attempt is taken from it.
  absl::Duration run_timeout_slack = absl::Seconds(15);
};

struct WorkerModel {
  std::string name{};
  bool loaded = false;
};

struct WorkerHello {
  std::string name{};
  int64_t process_id = 0;  // tells a process that comes back from a restarted one
  std::string device{};
  int max_attempts = 1;
  std::vector<WorkerModel> models{};
  std::vector<AttemptRef> held{};  // from before the connection broke
};

struct LostAttempt {
  AttemptRef ref{};
  std::string worker{};
  SessionId session = 0;  // of the worker where it is still connected: tell it to drop the attempt
  FailureCause cause = FailureCause::kLeaseLost;  // or kCrash, kHang, kRunTimeout, kInterrupted
  std::string reason{};                           // "worker lost: no heartbeat for 10s"
};

struct HelloResult {
  SessionId session = 0;
  std::vector<AttemptRef> resumed{};  // still the worker's: it goes on
  std::vector<AttemptRef> dropped{};  // not (any more): it must drop them
  // The registry knew them as the worker's, the worker has them no more; to be ended in the store.
  // kCrash where the process is another one, kInterrupted where it is the same (the order to start
  // never reached it), kLeaseLost where that is not known.
  std::vector<LostAttempt> lost{};
};

// A worker as it is now.
struct WorkerSnapshot {
  std::string name{};
  std::string device{};
  SessionId session = 0;  // 0 while it is not connected
  bool is_draining = false;
  int max_attempts = 1;
  int reserved = 0;  // slots taken by Reserve and not yet by Assign
  std::vector<WorkerModel> models{};
  std::vector<AttemptRef> held{};
};

// A slot kept free for one attempt of `worker`.
struct Reservation {
  SessionId session = 0;
  int64_t generation = 0;  // of the set of workers, when the slot was reserved
  ReadyWorker worker{};
};

class WorkerRegistry {
 public:
  // `clock` must outlive the registry.
  WorkerRegistry(const LeaseOptions& options, const Clock& clock);

  // At start, before any hello: the store's RUNNING attempts, each to be claimed back within
  // reattach_grace. Their run timeouts start anew: monotonic time does not outlive a process.
  void Adopt(const std::vector<RunningAttempt>& running);

  // INVALID_ARGUMENT: no name, or max_attempts < 1. `held` is believed only where job, attempt and
  // token match.
  absl::StatusOr<HelloResult> Hello(const WorkerHello& hello);

  // Renews the leases. `progress_counter` standing still while attempts are held counts towards
  // stall_limit. ABORTED: the session was replaced or its worker lost; the stream is to be closed.
  absl::Status Heartbeat(SessionId session, int64_t progress_counter,
                         const std::vector<WorkerModel>& models);

  // Takes no more attempts. ABORTED as above.
  absl::Status StartDraining(SessionId session);

  // The stream ended; the process may live. Its attempts wait for it. No effect on a replaced
  // session.
  void Disconnected(SessionId session);

  // The process is known to have ended: the attempts it held, lost now. `cause`: kCrash, kHang or
  // kInterrupted (an ordered end). No effect once another process has said hello under the name.
  std::vector<LostAttempt> WorkerEnded(const std::string& name, int64_t process_id,
                                       FailureCause cause, const std::string& reason);

  // Keeps a slot of a connected worker that has one free and fewer than kMaxUnfitJobs unfit jobs,
  // or nothing. Workers with fewer attempts come first, then by name. `skip` names workers to pass
  // over (those the queue has nothing for just now).
  std::optional<Reservation> Reserve(const std::vector<std::string>& skip);
  void CancelReservation(const Reservation& reservation);
  // Whether Assign would take an attempt now: the session is not over and not draining.
  bool CanAssign(const Reservation& reservation) const;
  // The job does not fit the worker, but may fit another one: until any worker comes or goes, the
  // worker's reservations name the job among the unfit ones. The slot stays reserved. No effect
  // where one came or went since the reservation.
  void MarkUnfit(const Reservation& reservation, const std::string& job_id);
  bool IsUnfit(const Reservation& reservation, const std::string& job_id) const;
  // The job has ended: no worker needs to remember that it does not fit. True: a worker that got
  // nothing because of kMaxUnfitJobs may get something now.
  bool ForgetUnfit(const std::string& job_id);
  // Every job is to be judged anew: what counted as a worker that may come back has changed.
  void ForgetAllUnfit();
  // Turns the slot into a held attempt. ABORTED: the session is gone; the caller ends the attempt
  // (kInterrupted).
  absl::Status Assign(const Reservation& reservation, const AttemptRef& ref,
                      absl::Duration run_timeout);

  // The session that holds exactly this attempt now. ABORTED (STALE_ATTEMPT): none, or it is not
  // connected.
  absl::StatusOr<SessionId> Holder(const AttemptRef& ref) const;
  // The attempt has ended in the store; its slot is free. No effect when it is not held.
  void Release(const AttemptRef& ref);

  // Attempts whose lease, grace, progress or run timeout is over, removed from the registry. To be
  // called when NextDeadline passes; calling it more often is harmless.
  std::vector<LostAttempt> TakeLost();
  // The store could not end `lost` just now: TakeLost gives it again, a second later.
  void GiveBack(LostAttempt lost);
  // Monotonic time of the next possible loss; InfiniteDuration when none.
  absl::Duration NextDeadline() const;

  std::vector<WorkerSnapshot> Snapshot() const;  // by name

 private:
  struct Held {
    AttemptRef ref;
    absl::Duration run_deadline = absl::InfiniteDuration();
  };
  struct Worker {
    SessionId session = 0;   // 0 while not connected
    int64_t process_id = 0;  // 0: not known
    std::string device;
    bool is_draining = false;
    int max_attempts = 1;
    int reserved = 0;
    std::vector<WorkerModel> models;
    std::vector<Held> held;
    std::set<std::string> unfit_jobs;
    absl::Duration deadline;  // of the lease while connected, of the grace while not
    int64_t progress_counter = 0;
    absl::Duration progress_time;  // when the counter last moved, or work began
    int used() const { return static_cast<int>(held.size()) + reserved; }
  };
  using Workers = std::map<std::string, Worker>;  // by name

  void ForgetAllUnfitLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Workers::iterator FindSession(SessionId session) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Workers::const_iterator FindSession(SessionId session) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool IsStalled(const Worker& worker, absl::Duration now) const;

  const LeaseOptions options_;
  const Clock& clock_;
  mutable absl::Mutex mutex_;
  SessionId last_session_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t generation_ ABSL_GUARDED_BY(mutex_) = 0;  // counts workers that come and go
  Workers workers_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::pair<absl::Duration, LostAttempt>> given_back_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace kino::scheduler
