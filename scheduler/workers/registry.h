// Who can work and who holds what: connected workers, their slots, and a lease on each attempt they
// hold. All deadlines are monotonic. The registry decides nothing durable: it hands back lost
// attempts, and the caller ends them in the store.
//
// A connection is a session: a new hello under the same name replaces the old session, whose calls
// are then refused. When a session ends without notice of the process's death, its attempts wait
// `reattach_grace` for it to come back; the same holds for attempts that a restarted frontend finds
// RUNNING in the store (Adopt).
//
// A process that stood still has heard nobody meanwhile. So time in which TakeLost was not called
// counts against no worker: who looks late first listens, then judges.
//
// One thread at a time; no call blocks, calls back or does I/O.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "scheduler/clock.h"
#include "scheduler/jobs/job.h"
#include "scheduler/queue/policy.h"
#include "scheduler/queue/run_history.h"
#include "scheduler/store/job_store.h"

namespace kino::scheduler {

using SessionId = int64_t;  // never 0

// A worker that so many waiting jobs do not fit gets nothing more until one of them ends: what it
// is not to get is looked through at each claim, and to forget one would offer it again at once.
inline constexpr size_t kMaxUnfitJobs = 1000;

// Without progress for so long an attempt hangs. Judged for each attempt and stage.
struct HangLimits {
  absl::Duration loading = absl::Minutes(10);
  // Of a stage whose usual step is not known yet.
  absl::Duration unknown = absl::Minutes(10);
  // Once it is: `factor` usual steps, and not less than `least`.
  double factor = 5;
  absl::Duration least = absl::Minutes(2);
  // A step is usual once so many of the stage have finished, in the attempt or in earlier ones of
  // the same kind. Where both are known the longer one holds.
  int steps_to_know = 3;
};

struct LeaseOptions {
  // Without a word for so long a connected worker is lost.
  absl::Duration lease = absl::Seconds(10);
  // Without a connection for so long the attempts of a worker that may live are lost.
  absl::Duration reattach_grace = absl::Seconds(15);
  HangLimits hang{};
  // The worker itself stops at run_timeout; so much later the attempt is taken from it.
  absl::Duration run_timeout_slack = absl::Seconds(15);
  // TakeLost is called more often than this. What a call comes later counts against nobody.
  absl::Duration look_interval = absl::Milliseconds(500);
};

// Of an attempt, as its worker tells.
struct AttemptPulse {
  AttemptRef ref{};
  int stage = kStageWaiting;
  int64_t counter = 0;  // rises with whatever gets done
  int steps = 0;        // finished ones of the stage
  absl::Duration usual_step{};
};

struct WorkerModel {
  std::string name{};
  bool loaded = false;
  bool operator==(const WorkerModel&) const = default;
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
  AttemptPulse pulse{};                           // the last one
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
  bool is_out = false;  // its device is not trusted
  int max_attempts = 1;
  int reserved = 0;  // slots taken by Reserve and not yet by Assign
  std::vector<WorkerModel> models{};
  std::vector<AttemptRef> held{};
};

// A slot kept free for one attempt of `worker`.
struct Reservation {
  SessionId session = 0;
  int64_t generation = 0;  // of the set of workers, when the slot was reserved
  int64_t process_id = 0;  // of the worker
  ReadyWorker worker{};
};

class WorkerRegistry {
 public:
  // `clock` must outlive the registry.
  WorkerRegistry(const LeaseOptions& options, const Clock& clock);

  // At start, before any hello: the store's RUNNING attempts, each to be claimed back within
  // reattach_grace. Their run timeouts start anew, monotonic time does not outlive a process, once
  // their workers say that they have begun.
  void Adopt(const std::vector<RunningAttempt>& running);

  // INVALID_ARGUMENT: no name, or max_attempts < 1. `held` is believed only where job, attempt and
  // token match.
  absl::StatusOr<HelloResult> Hello(const WorkerHello& hello);

  // Any word of the worker renews its lease. ABORTED: the session was replaced or its worker lost;
  // the stream is to be closed.
  absl::Status Heard(SessionId session);
  // A word, and how far each attempt is. One whose stage and counter stand still comes nearer to
  // its hang limit. `counter` rises with whatever the worker gets done, be it for no attempt, such
  // as a model that a client has it load: an attempt that waits for that does not hang. ABORTED as
  // above.
  absl::Status Heartbeat(SessionId session, int64_t counter,
                         const std::vector<AttemptPulse>& pulses,
                         const std::vector<WorkerModel>& models);

  // Takes no more attempts. ABORTED as above.
  absl::Status StartDraining(SessionId session);

  // Workers on `device` are ready or not, whatever else they are.
  void SetOut(const std::string& device, bool is_out);

  // The stream ended; the process may live. Its attempts wait for it. No effect on a replaced
  // session.
  void Disconnected(SessionId session);

  // The process is known to have ended: the attempts it held, lost now. `cause`: kCrash, kHang or
  // kInterrupted (an ordered end). No effect once another process has said hello under the name.
  std::vector<LostAttempt> WorkerEnded(const std::string& name, int64_t process_id,
                                       FailureCause cause, const std::string& reason);

  // Connected workers that have a slot free and fewer than kMaxUnfitJobs unfit jobs, by name.
  std::vector<ReadyWorker> Ready() const;
  // Keeps a slot of this worker, or nothing when it is not ready.
  std::optional<Reservation> Reserve(const std::string& worker);
  void CancelReservation(const Reservation& reservation);
  // Whether Assign would take an attempt now: the session is not over, not draining and not out.
  bool CanAssign(const Reservation& reservation) const;
  // The job does not fit the worker, but may fit another one: until any worker comes or goes, the
  // job is among the worker's unfit ones. The slot stays reserved. No effect where one came or went
  // since the reservation.
  void MarkUnfit(const Reservation& reservation, const std::string& job_id);
  bool IsUnfit(const Reservation& reservation, const std::string& job_id) const;
  // Jobs that some worker is not to get.
  std::set<std::string> Unfit() const;
  // The job has ended: no worker needs to remember that it does not fit. True: a worker that got
  // nothing because of kMaxUnfitJobs may get something now.
  bool ForgetUnfit(const std::string& job_id);
  // Every job is to be judged anew: what counted as a worker that may come back has changed.
  void ForgetAllUnfit();
  // Turns the slot into a held attempt. Its run_timeout counts from Begun. ABORTED: the session is
  // gone, draining or out; the caller ends the attempt (kInterrupted).
  absl::Status Assign(const Reservation& reservation, const AttemptRef& ref,
                      absl::Duration run_timeout);
  // The worker has begun to run the attempt. A pulse of a stage behind the load says so, too. No
  // effect when it is not held.
  void Begun(const AttemptRef& ref);

  // How long steps of such a run usually take. No effect when it is not held.
  void SetUsualSteps(const AttemptRef& ref, UsualSteps steps);

  // The session that holds exactly this attempt now. ABORTED (STALE_ATTEMPT): none, or it is not
  // connected.
  absl::StatusOr<SessionId> Holder(const AttemptRef& ref) const;
  // The last pulse of a held attempt; an empty one when it is not held.
  AttemptPulse PulseOf(const AttemptRef& ref) const;
  // The attempt has ended in the store; its slot is free. No effect when it is not held.
  void Release(const AttemptRef& ref);

  // Attempts whose lease, grace, progress or run timeout is over, removed from the registry. To be
  // called again and again, also when nothing is due. Slots may be free afterwards, and workers
  // gone.
  std::vector<LostAttempt> TakeLost();

  // By how much the last TakeLost came late.
  absl::Duration late() const { return late_; }

  std::vector<WorkerSnapshot> Snapshot() const;  // by name
  // Rises with every change that Snapshot shows.
  int64_t version() const { return version_; }

 private:
  struct Held {
    AttemptRef ref;
    absl::Duration run_timeout = absl::InfiniteDuration();
    absl::Duration run_deadline = absl::InfiniteDuration();
    AttemptPulse pulse;
    UsualSteps usual;              // of earlier runs
    absl::Duration progress_time;  // when the pulse last moved, or the attempt was given
  };
  struct Worker {
    SessionId session = 0;   // 0 while not connected
    int64_t process_id = 0;  // 0: not known
    int64_t counter = 0;     // as it last told
    std::string device;
    bool is_draining = false;
    int max_attempts = 1;
    int reserved = 0;
    std::vector<WorkerModel> models;
    std::vector<Held> held;
    std::set<std::string> unfit_jobs;
    absl::Duration deadline;  // of the lease while connected, of the grace while not
    int used() const { return static_cast<int>(held.size()) + reserved; }
  };
  using Workers = std::map<std::string, Worker>;  // by name

  Workers::iterator FindSession(SessionId session);
  Workers::const_iterator FindSession(SessionId session) const;
  Held* FindHeld(const AttemptRef& ref);
  bool IsReady(const Worker& worker) const;
  ReadyWorker Describe(const std::string& name, const Worker& worker) const;
  absl::Duration HangLimit(const Held& held) const;
  // Moves all deadlines by what this look comes late.
  void ListenFirst(absl::Duration now);

  const LeaseOptions options_;
  const Clock& clock_;
  SessionId last_session_ = 0;
  int64_t generation_ = 0;  // counts workers that come and go
  int64_t version_ = 0;
  Workers workers_;
  std::set<std::string> out_;  // devices
  absl::Duration last_look_;
  absl::Duration late_;
};

}  // namespace kino::scheduler
