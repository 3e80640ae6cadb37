// Brings queued jobs to free slots: asks the policy whose turn it is, keeps a slot, has the job
// judged, claims it, and hands the lease over.
//
// While a job is judged it stays QUEUED in the store and is held in the queue: no other slot is
// offered it, and a cancel, a start_timeout or the end of this process need no undoing. It is
// claimed only once it is known to fit.
//
// Belongs to one thread, the strand, as the registry and the queue do; what comes back from the
// store and from judges is posted to it. Nothing blocks.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "scheduler/jobs/event.h"
#include "scheduler/queue/job_queue.h"
#include "scheduler/store/job_store.h"
#include "scheduler/workers/registry.h"

namespace kino::scheduler {

enum class Fit {
  kHere,       // on this worker, or nobody can tell
  kElsewhere,  // not on this worker; another one that is up may take it
  kNowhere,    // on no worker that is up
};

struct Verdict {
  Fit fit = Fit::kHere;
  // Of kNowhere, becomes the job's: what it needs, what there is, what would fit. It gets the
  // reason DOES_NOT_FIT unless it has another. OK: a general text is taken.
  absl::Status error{};
};

class Dispatcher {
 public:
  // Runs a task on the strand. Callable from any thread; drops the task once the strand has ended.
  using Post = std::function<void(absl::AnyInvocable<void()>)>;

  // A lease for the worker of `reservation`. `assigned`: whether the registry took the attempt;
  // where it did not (the worker has gone), the attempt is to be ended as kInterrupted.
  using Start = std::function<void(const Reservation& reservation, ClaimedAttempt claimed,
                                   const absl::Status& assigned)>;

  // Says whether a job that is about to be claimed fits the worker of `reservation`. Must not
  // block. `done` is to be called once, from any thread, before or after the judge returns, also
  // when the worker has gone (kHere: then nothing happens to the job). Until then the slot and the
  // job wait. After Stop `done` does nothing; so does a second call.
  using Judge = std::function<void(const Reservation& reservation, const QueuedJob& job,
                                   std::function<void(Verdict)> done)>;

  // All outlive this, and so does what `post` uses. `log`: what an operator should know.
  Dispatcher(JobStore& store, WorkerRegistry& registry, JobQueue& queue, Post post, Start start,
             Judge judge, std::function<void(const std::string&)> log);

  // To be called whenever there may be a match: a worker said hello or has a free slot, a back-off
  // has ended. After a failing store, call it again later.
  void Pump();

  // Every change of the store, in order: keeps the queue up to date and pumps where it matters.
  void OnChange(const Change& change);

  // Nothing is claimed while `reason` is not empty.
  void SetHold(const std::string& reason);
  const std::string& hold() const { return hold_; }

  // Claims nothing more, and frees the slots of jobs that are being judged; those stay QUEUED.
  void Stop();

 private:
  struct Question {
    Reservation reservation;
    QueuedJob job;
    // The job left the queue meanwhile; if it is there again, that is another wait of its own.
    bool is_void = false;
  };

  void Ask(const Reservation& reservation, const QueuedJob& job);
  void Settle(int64_t id, const Verdict& verdict);
  void Claim(const Question& question);
  void OnClaimed(const Question& question, absl::StatusOr<std::optional<ClaimedAttempt>> claimed);
  void Fail(const Question& question, absl::Status error);
  // The job may be offered again, the slot is free.
  void LetGo(const Question& question);

  JobStore& store_;
  WorkerRegistry& registry_;
  JobQueue& queue_;
  const Post post_;
  const Start start_;
  const Judge judge_;
  const std::function<void(const std::string&)> log_;
  std::string hold_;
  bool is_stopped_ = false;
  int64_t last_question_ = 0;
  std::map<int64_t, Question> questions_;  // of judges that have not answered
};

}  // namespace kino::scheduler
