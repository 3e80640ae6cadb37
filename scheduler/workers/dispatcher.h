// Brings queued jobs to free slots: reserves a slot, finds the job that the policy picks for it,
// has it judged, claims it, and hands the lease over.
//
// While a job is judged it stays QUEUED in the store and is held here: no other slot is offered it,
// and a cancel, a start_timeout or the end of this process need no undoing. It is claimed only once
// it is known to fit.
//
// Thread-safe; Pump never blocks. Its callbacks run on the store's thread, so Stop it, then destroy
// the store, then this and the registry.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "scheduler/jobs/event.h"
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
  // A lease for the worker behind `session`, already assigned in the registry. Runs on the store's
  // thread and must be quick.
  using Start = std::function<void(SessionId session, ClaimedAttempt claimed)>;

  // Says whether a job that is about to be claimed fits the worker of `reservation`. Runs on the
  // store's thread and must not block. `done` is to be called once, from any thread, before or
  // after the judge returns, also when the worker has gone (kHere: then nothing happens to the
  // job). Until then the slot and the job wait. Once Stop has returned, and after the dispatcher's
  // end, `done` does nothing; so does a second call.
  using Judge = std::function<void(const Reservation& reservation, const Job& job,
                                   std::function<void(Verdict)> done)>;

  // `log`: what an operator should know.
  Dispatcher(JobStore& store, WorkerRegistry& registry, Start start, Judge judge,
             std::function<void(const std::string&)> log);

  // To be called whenever there may be a match: a worker said hello or has a free slot,
  // JobStore::NextTimer passed. After a failing store, call it again later.
  void Pump();

  // To be called by a change listener of the store with every change: pumps where a job was queued,
  // and forgets what it knew of jobs that have ended.
  void OnChanges(const std::vector<Change>& changes);

  // Claims nothing more, and frees the slots of jobs that are being judged; those stay QUEUED.
  // Waits for answers that are just being carried out, which is short. Call it before the store is
  // destroyed, and not from a judge.
  void Stop();

 private:
  struct Question {
    Reservation reservation;
    std::string job_id;
    bool is_answered = false;
  };
  // Outlives the dispatcher in the hands of a judge that is late.
  struct State {
    absl::Mutex mutex;
    int64_t wishes ABSL_GUARDED_BY(mutex) = 0;  // calls of Pump
    bool is_stopped ABSL_GUARDED_BY(mutex) = false;
    int64_t last_question ABSL_GUARDED_BY(mutex) = 0;
    // Whose jobs are held: until the store has carried out what was answered, so that a look that
    // was under way before cannot bring the job a second time.
    std::map<int64_t, Question> questions ABSL_GUARDED_BY(mutex);
    int answering ABSL_GUARDED_BY(mutex) = 0;  // answers that are just being carried out
  };

  void Round();
  // Asks the store for a job for the slot.
  void Look(const Reservation& reservation, int64_t wish);
  void Ask(const Reservation& reservation, const Job& job);
  static void Answer(State& state, Dispatcher* dispatcher, int64_t id, const Verdict& verdict);
  void Settle(int64_t id, const Question& question, const Verdict& verdict);
  // Tells the operator; nothing once stopped.
  void Report(const char* what, const absl::Status& status);
  // The job is held no longer.
  void Close(int64_t id);
  void Claim(int64_t id, const Question& question);
  void Fail(int64_t id, const Question& question, absl::Status error);
  void HandOver(const Reservation& reservation, ClaimedAttempt claimed);

  JobStore& store_;
  WorkerRegistry& registry_;
  const Start start_;
  const Judge judge_;
  const std::function<void(const std::string&)> log_;
  const std::shared_ptr<State> state_ = std::make_shared<State>();
};

}  // namespace kino::scheduler
